// Small things that several pages show.

import type { ComponentChildren } from "preact";
import type { Refused } from "./api";
import { Failed } from "./act";

/** A state in a word, with a sign: colour alone says nothing. */
export function State({ level, children }: { level: "ok" | "warning" | "critical" | "unknown"; children: ComponentChildren }) {
  const sign = { ok: "√", warning: "‼", critical: "×", unknown: "?" }[level];
  return (
    <span class={`state ${level}`}>
      <span aria-hidden="true">{sign}</span> {children}
    </span>
  );
}

export function Figure({ title, children, note }: { title: string; children: ComponentChildren; note?: ComponentChildren }) {
  return (
    <div class="figure">
      <dt>{title}</dt>
      <dd>
        <strong>{children}</strong>
        {note && <span class="quiet">{note}</span>}
      </dd>
    </div>
  );
}

/** What is being read, or why it cannot be. */
export function Pending({ error, what }: { error: Refused | null; what: string }) {
  return error ? <Failed error={error} /> : <p class="quiet">reading {what}…</p>;
}

export function Unanswered({ names }: { names: string[] }) {
  if (names.length === 0) return null;
  return <p class="note">No answer from {names.join(", ")}: what is known there is missing below.</p>;
}

export function Facts({ facts }: { facts: [string, ComponentChildren][] }) {
  return (
    <dl class="facts">
      {facts.map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{value ?? "–"}</dd>
        </div>
      ))}
    </dl>
  );
}
