// Calls of /api/v1. An admin token goes in a header and nowhere else: no cookie, no address, nothing that outlives the tab.
// Who signed in at a provider has a session instead, in a cookie that no script can read.

import { signal } from "@preact/signals";

const KEPT = "quorumgate-token";
const BASE = "/api/v1/";
/** A call that takes longer tells nobody anything. */
const CALL_WITHIN_MS = 15_000;

/** Stands for a session where there is no token. */
const SESSION = "session";
/** Where one was when one left for the provider. */
const PLACE = "quorumgate-place";
/** What other sites cannot send: without it a session counts for nothing. */
const OURS = { "quorumgate-page": "1" };

export const token = signal<string>(sessionStorage.getItem(KEPT) ?? "");
/** Why somebody who was signed in is not any more. */
export const signedOut = signal<string>("");

export interface Field {
  field: string;
  message: string;
}

export class Refused extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    readonly fields: Field[] = [],
    readonly requestId: string | null = null,
  ) {
    super(message);
  }
}

export function signIn(text: string) {
  sessionStorage.setItem(KEPT, text);
  signedOut.value = "";
  token.value = text;
}

export interface Door {
  issuer: string | null;
  signed_in: boolean;
}

/** Whether one may sign in at a provider here; who has already is let in. */
export async function atTheDoor(): Promise<Door> {
  const told = await fetch("session", { headers: OURS, cache: "no-store" });
  const door: Door = told.ok ? await told.json() : { issuer: null, signed_in: false };
  const place = sessionStorage.getItem(PLACE);
  sessionStorage.removeItem(PLACE);
  if (door.signed_in) {
    if (place) location.hash = place;
    signIn(SESSION);
  }
  return door;
}

export function leaveForProvider() {
  sessionStorage.setItem(PLACE, location.hash);
  location.assign("login");
}

/** Ends a session on every node, and the provider's if it has a way for that. */
export async function leave() {
  if (token.value !== SESSION) return signOut();
  const told = await fetch("logout", { method: "POST", headers: OURS, redirect: "error" }).catch(() => null);
  if (!told?.ok) return signOut("This node could not end the session: close the browser, or ask an admin to revoke it.");
  const { location: onwards, everywhere } = await told.json();
  signOut(everywhere ? "" : "Signed out in this browser; the cluster could not be told.");
  if (onwards && everywhere) location.assign(onwards);
}

export function signOut(why = "") {
  sessionStorage.removeItem(KEPT);
  signedOut.value = why;
  token.value = "";
}

async function refused(response: Response): Promise<Refused> {
  const told = await response.json().catch(() => ({}));
  const message = told.message ?? `${response.status} ${response.statusText}`;
  return new Refused(response.status, told.code ?? "", message, told.fields ?? [], told.request_id ?? null);
}

async function send(method: string, path: string, body: unknown, signal: AbortSignal): Promise<Response> {
  const bySession = token.value === SESSION;
  const headers: Record<string, string> = bySession ? { ...OURS } : { authorization: `Bearer ${token.value}` };
  if (body !== undefined) headers["content-type"] = "application/json";
  const request = { method, headers, signal, body: body === undefined ? undefined : JSON.stringify(body) };
  let response: Response;
  try {
    response = await fetch(BASE + path, { ...request, cache: "no-store", credentials: bySession ? "same-origin" : "omit", redirect: "error" });
  } catch (error) {
    if (signal.aborted && !(signal.reason instanceof DOMException && signal.reason.name === "TimeoutError")) throw error;
    throw new Refused(0, "unreachable", "this node does not answer");
  }
  if (response.ok) return response;
  const why = await refused(response);
  if (response.status === 401) signOut(why.message);
  throw why;
}

export async function call<T>(method: string, path: string, body?: unknown, stop?: AbortSignal): Promise<T> {
  const within = AbortSignal.timeout(CALL_WITHIN_MS);
  const response = await send(method, path, body, stop ? AbortSignal.any([stop, within]) : within);
  return (await response.json()) as T;
}

export const get = <T>(path: string, stop?: AbortSignal) => call<T>("GET", path, undefined, stop);

/** `a=b&c=d`, without what is empty. */
export function query(words: Record<string, string | number | boolean | undefined>): string {
  const pairs = Object.entries(words).filter(([, value]) => value !== undefined && value !== "" && value !== false);
  const text = pairs.map(([name, value]) => `${name}=${encodeURIComponent(String(value))}`).join("&");
  return text && `?${text}`;
}

/** Server-sent events by fetch, since EventSource cannot send the header. Ends when the stream does. */
export async function events(path: string, stop: AbortSignal, each: (event: any) => void): Promise<void> {
  const response = await send("GET", path, undefined, stop);
  const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    rest += value;
    let end: number;
    while ((end = rest.indexOf("\n\n")) >= 0) {
      const lines = rest.slice(0, end).split("\n");
      rest = rest.slice(end + 2);
      const data = lines.filter((line) => line.startsWith("data: ")).map((line) => line.slice(6));
      if (data.length === 0) continue;
      const event = JSON.parse(data.join("\n"));
      if (event.event === "error") throw new Refused(0, event.error.code, event.error.message);
      each(event);
    }
  }
}
