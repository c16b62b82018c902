// Numbers, times and lengths of time as people read them.

import type { Counted } from "./types";

export const count = (value: number) => value.toLocaleString("en-US");

export function rate(perSecond: number): string {
  if (perSecond === 0) return "0";
  if (perSecond < 0.1) return perSecond.toFixed(2);
  return perSecond < 100 ? perSecond.toFixed(1) : count(Math.round(perSecond));
}

export function micros(us: number | null | undefined): string {
  if (us === null || us === undefined) return "–";
  if (us < 1_000) return `${Math.round(us)} µs`;
  const ms = us / 1_000;
  if (ms < 10) return `${ms.toFixed(1)} ms`;
  return ms < 1_000 ? `${Math.round(ms)} ms` : `${(ms / 1_000).toFixed(ms < 10_000 ? 1 : 0)} s`;
}

export function bytes(value: number): string {
  if (value < 1_024) return `${value} B`;
  return value < 1 << 20 ? `${(value / 1_024).toFixed(1)} KiB` : `${(value / (1 << 20)).toFixed(1)} MiB`;
}

export const clock = (ms: number) => new Date(ms).toLocaleTimeString("en-GB");

export function when(time: string | null | undefined): string {
  if (!time) return "–";
  const at = new Date(time);
  return `${at.toLocaleDateString("en-CA")} ${at.toLocaleTimeString("en-GB")}`;
}

/** `12 s`, `4 min`, `3 h`, `2 d` */
export function span(ms: number): string {
  const s = Math.max(0, Math.round(ms / 1_000));
  if (s < 120) return `${s} s`;
  if (s < 7_200) return `${Math.round(s / 60)} min`;
  return s < 172_800 ? `${Math.round(s / 3_600)} h` : `${Math.round(s / 86_400)} d`;
}

export const ago = (ms: number | null, now: number) => (ms === null ? "not seen" : `${span(now - ms)} ago`);

export const plural = (n: number, one: string, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;

/** Part of the requests that the gateway and its upstreams did not fail. */
export function success(it: Counted): number | null {
  return it.requests === 0 ? null : 1 - it.server_errors / it.requests;
}

export function percent(part: number | null): string {
  if (part === null) return "–";
  if (part === 1) return "100 %";
  return `${(Math.floor(part * 10_000) / 100).toFixed(2)} %`;
}

/** Microseconds; within its bucket the times are taken to be spread evenly. Null: none, or above all bounds. */
export function quantile(durations: number[], bounds: number[], part: number): number | null {
  const all = durations.reduce((sum, it) => sum + it, 0);
  if (all === 0) return null;
  const wanted = Math.ceil(all * part);
  let below = 0;
  for (let slot = 0; slot < durations.length; slot++) {
    const here = durations[slot]!;
    if (below + here >= wanted) {
      const high = bounds[slot];
      if (high === undefined) return null;
      const low = slot === 0 ? 0 : bounds[slot - 1]!;
      return low + ((high - low) * (wanted - below)) / here;
    }
    below += here;
  }
  return null;
}

export function add(sum: number[], more: number[]): number[] {
  const length = Math.max(sum.length, more.length);
  return Array.from({ length }, (_, slot) => (sum[slot] ?? 0) + (more[slot] ?? 0));
}

/** As a shell takes it. */
export const quoted = (text: string) => (/^[\w./:=@,-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`);
