// What every page sees: who is signed in, the cluster at a glance, the place in the address, and the time.

import { computed, effect, signal } from "@preact/signals";
import { useEffect, useRef, useState } from "preact/hooks";
import { Refused, events, get, query, token } from "./api";
import type { Overview, Revision, Who } from "./types";

/** Events come each second; without one for this long what is shown is old. */
const STALE_AFTER_MS = 3_000;
const AGAIN_AFTER_MS = [250, 500, 1_000, 2_000];

export const who = signal<Who | null>(null);
export const overview = signal<Overview | null>(null);
export const now = signal(Date.now());
/** When the last event came, by the clock of this machine. */
const heard = signal(Date.now());
/** When the cluster's answer in `overview` came: trials count down from there. */
export const seenAt = heard;
export const revisions = signal<Revision[]>([]);

export const staleFor = computed(() => {
  const silent = now.value - heard.value;
  return silent > STALE_AFTER_MS ? Math.round(silent / 1_000) : 0;
});
export const acts = computed(() => who.value?.role === "operator" || who.value?.role === "admin");
export const administers = computed(() => who.value?.role === "admin" && !who.value.owner);
/** What concerns the whole cluster is not for tokens of one owner. */
export const actsOnAll = computed(() => acts.value && !who.value?.owner);

/** `#/routes/orders?q=x` → ["routes", "orders"] and the words. */
export const place = signal(read());

function read(): { parts: string[]; words: URLSearchParams } {
  const [path = "", words = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const parts = path.split("/").filter(Boolean).map(decoded);
  return { parts: parts.length ? parts : ["overview"], words: new URLSearchParams(words) };
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

export const link = (...parts: string[]) => `#/${parts.map(encodeURIComponent).join("/")}`;

/** Keeps a filter in the address, so that the page can be shared as it is seen. */
export function setWords(words: Record<string, string>) {
  const kept = new URLSearchParams(place.value.words);
  for (const [name, value] of Object.entries(words)) value ? kept.set(name, value) : kept.delete(name);
  const text = kept.toString();
  history.replaceState(null, "", link(...place.value.parts) + (text && `?${text}`));
  place.value = read();
}

window.addEventListener("hashchange", () => (place.value = read()));
setInterval(() => (now.value = Date.now()), 500);

effect(() => {
  if (!token.value) {
    who.value = null;
    overview.value = null;
    return;
  }
  const stop = new AbortController();
  heard.value = Date.now();
  void follow(stop.signal);
  return () => stop.abort();
});

/** Until somebody signs out: a stream that breaks is opened again. */
async function follow(stop: AbortSignal) {
  for (let failed = 0; !stop.aborted; ) {
    try {
      who.value ??= await get<Who>("whoami", stop);
      await events("stream", stop, (event: Overview) => {
        failed = 0;
        heard.value = Date.now();
        overview.value = event;
      });
    } catch (error) {
      if (!(error instanceof Refused) && !stop.aborted) console.warn(error);
    }
    if (stop.aborted) return;
    await new Promise((done) => setTimeout(done, AGAIN_AFTER_MS[Math.min(failed++, AGAIN_AFTER_MS.length - 1)]));
  }
}

/** Moves with every write to the cluster: what was read before may have changed. */
export const written = computed(() => overview.value?.written ?? 0);

export interface Loaded<T> {
  data: T | null;
  error: Refused | null;
  again: () => void;
}

/** Asks again after each write, and each `everyMs` if that is given. `path` null: asks nothing. */
export function useLoaded<T>(path: string | null, everyMs = 0): Loaded<T> {
  const [state, setState] = useState<{ path: string | null; data: T | null; error: Refused | null }>({
    path: null,
    data: null,
    error: null,
  });
  const [round, setRound] = useState(0);
  const at = written.value;
  const running = useRef(false);
  useEffect(() => {
    if (path === null) return;
    const stop = new AbortController();
    const load = () => {
      if (running.current && everyMs) return;
      running.current = true;
      get<T>(path, stop.signal)
        .then((data) => setState({ path, data, error: null }))
        .catch((error) => {
          if (stop.signal.aborted) return;
          const refused = error instanceof Refused ? error : new Refused(0, "", String(error));
          setState((old) => ({ path, data: old.path === path ? old.data : null, error: refused }));
        })
        .finally(() => (running.current = false));
    };
    load();
    const timer = everyMs ? setInterval(() => document.hidden || load(), everyMs) : 0;
    return () => {
      clearInterval(timer);
      stop.abort();
      running.current = false;
    };
  }, [path, everyMs, at, round]);
  const known = state.path === path;
  return { data: known ? state.data : null, error: known ? state.error : null, again: () => setRound((it) => it + 1) };
}

// The newest revisions, for the marks on charts and for the page of changes.
let revisionsOf = "";
effect(() => {
  const seen = overview.value;
  const of = seen ? `${token.value.length} ${seen.cluster.revision} ${seen.written}` : "";
  if (!of || of === revisionsOf) return;
  revisionsOf = of;
  get<{ revisions: Revision[] }>(`revisions${query({ limit: 200, stale: true })}`)
    .then((it) => (revisions.value = it.revisions))
    .catch(() => (revisionsOf = ""));
});
