// What the nodes have counted lately, kept while the page is open: only what is new is asked for.

import { useEffect, useState } from "preact/hooks";
import { Refused, get, query } from "./api";
import { add, quantile } from "./format";
import type { Frame, Traffic } from "./types";

const EVERY_MS = 5_000;
const KEPT_MS = 3_600_000;

export interface Lately {
  bounds: number[];
  unanswered: string[];
  /** Of all nodes together, the oldest first; at most an hour. */
  frames: Frame[];
  error: Refused | null;
}

/** Frames of nodes that ended within the same five seconds are one. */
export function together(nodes: Traffic["nodes"]): Frame[] {
  const sums = new Map<number, Frame>();
  for (const frame of nodes.flatMap((it) => it.frames)) {
    const at_ms = Math.round(frame.at_ms / EVERY_MS) * EVERY_MS;
    const sum = sums.get(at_ms);
    if (!sum) {
      sums.set(at_ms, { ...frame, at_ms });
      continue;
    }
    sum.requests += frame.requests;
    sum.client_errors += frame.client_errors;
    sum.server_errors += frame.server_errors;
    sum.in_flight += frame.in_flight;
    sum.span_ms = Math.max(sum.span_ms, frame.span_ms);
    sum.durations = add(sum.durations, frame.durations);
  }
  return [...sums.values()].sort((a, b) => a.at_ms - b.at_ms);
}

export function useLately(route = ""): Lately {
  const [lately, setLately] = useState<Lately>({ bounds: [], unanswered: [], frames: [], error: null });
  useEffect(() => {
    const stop = new AbortController();
    const kept = new Map<string, Traffic["nodes"][number]>();
    const load = async () => {
      // The nodes' clocks differ: what one may have made meanwhile is asked for again, and replaces what was there.
      const newest = [...kept.values()].map((it) => it.frames.at(-1)?.at_ms ?? 0);
      const since_ms = kept.size ? Math.max(0, Math.min(...newest) - 2 * EVERY_MS) : 0;
      try {
        const told = await get<Traffic>(`traffic${query({ route, since_ms: since_ms || undefined })}`, stop.signal);
        for (const node of told.nodes) {
          const first = node.frames[0]?.at_ms ?? Infinity;
          const old = kept.get(node.node)?.frames.filter((it) => it.at_ms < first) ?? [];
          const frames = [...old, ...node.frames];
          const from = (frames.at(-1)?.at_ms ?? 0) - KEPT_MS;
          kept.set(node.node, { ...node, frames: frames.filter((it) => it.at_ms > from) });
        }
        setLately({ bounds: told.bounds_us, unanswered: told.unanswered, frames: together([...kept.values()]), error: null });
      } catch (error) {
        if (!stop.signal.aborted && error instanceof Refused) setLately((it) => ({ ...it, error }));
      }
    };
    void load();
    const timer = setInterval(() => document.hidden || void load(), EVERY_MS);
    return () => {
      clearInterval(timer);
      stop.abort();
    };
  }, [route]);
  return lately;
}

export const perSecond = (frame: Frame, n: number) => (n * 1_000) / Math.max(1, frame.span_ms);

export const ms = (us: number | null) => (us === null ? null : us / 1_000);

export const quantiles = (frames: Frame[], bounds: number[], part: number) =>
  frames.map((it) => ms(quantile(it.durations, bounds, part)));
