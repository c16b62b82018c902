// The frame of every page: who and where one is, what is old or missing, and the way to the other pages.

import { useSignal } from "@preact/signals";
import type { ComponentType } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { Asked } from "./act";
import { type Door, atTheDoor, leave, leaveForProvider, signIn, signedOut, token } from "./api";
import { theme } from "./chart";
import { link, overview, place, staleFor, who } from "./state";
import { AccessPage } from "./pages/access";
import { AuditPage } from "./pages/audit";
import { ChangesPage } from "./pages/changes";
import { ClusterPage } from "./pages/cluster";
import { DoctorPage } from "./pages/doctor";
import { LimitsPage } from "./pages/limits";
import { ObjectsPage } from "./pages/objects";
import { OverviewPage } from "./pages/overview";
import { RoutesPage } from "./pages/routes";
import { TrafficPage } from "./pages/traffic";
import { Trial } from "./trial";

const PAGES: [string, string, ComponentType][] = [
  ["overview", "Overview", OverviewPage],
  ["cluster", "Cluster", ClusterPage],
  ["routes", "Routes", RoutesPage],
  ["traffic", "Traffic", TrafficPage],
  ["limits", "Limits", LimitsPage],
  ["access", "Access", AccessPage],
  ["objects", "Objects", ObjectsPage],
  ["changes", "Changes", ChangesPage],
  ["audit", "Audit", AuditPage],
  ["doctor", "Doctor", DoctorPage],
];

export function App() {
  return token.value ? <Signed /> : <SignIn />;
}

function SignIn() {
  const text = useSignal("");
  const door = useSignal<Door | null>(null);
  useEffect(() => void atTheDoor().then((it) => (door.value = it), () => {}), []);
  const issuer = door.value?.issuer;
  const submit = (event: Event) => {
    event.preventDefault();
    if (text.value.trim()) signIn(text.value.trim());
  };
  return (
    <main class="sign-in">
      <h1>Quorumgate</h1>
      {issuer && (
        <p class="provider">
          <button class="main" onClick={leaveForProvider}>
            Sign in at {issuer.replace(/^https?:\/\//, "")}
          </button>
          <span class="quiet"> or by</span>
        </p>
      )}
      <form onSubmit={submit}>
        <label for="token">Admin token</label>
        <input
          id="token"
          type="password"
          autocomplete="current-password"
          spellcheck={false}
          placeholder="qga_…"
          value={text.value}
          onInput={(event) => (text.value = event.currentTarget.value)}
        />
        <button class={issuer ? "" : "main"}>Sign in</button>
      </form>
      {signedOut.value && (
        <p class="failed" role="alert">
          {signedOut.value}
        </p>
      )}
      <p class="quiet">
        The token is kept in this tab alone. One is made on a node with
      </p>
      <p class="command">
        <code>quorumgate admin-token create NAME --role viewer</code>
      </p>
      <p class="quiet">A viewer sees, an operator acts, an admin decides who belongs to the cluster.</p>
    </main>
  );
}

function Signed() {
  const at = place.value.parts[0]!;
  const [, title, Page] = PAGES.find(([name]) => name === at) ?? PAGES[0]!;
  const main = useRef<HTMLElement>(null);
  const where = place.value.parts.join("/");
  const first = useRef(true);
  useEffect(() => {
    document.title = `${title} · Quorumgate`;
    // Who goes elsewhere by keyboard goes on reading there.
    if (!first.current) main.current?.focus();
    first.current = false;
  }, [where]);
  return (
    <>
      <a class="skip" href="#content" onClick={(event) => (event.preventDefault(), main.current?.focus())}>
        To the content
      </a>
      <Head at={at} />
      <Banners />
      <main id="content" ref={main} tabIndex={-1}>
        {overview.value ? <Page key={at} /> : <p class="quiet">asking this node…</p>}
      </main>
      <Asked />
    </>
  );
}

function Head({ at }: { at: string }) {
  const seen = overview.value;
  const me = who.value;
  return (
    <header>
      <p class="brand">
        <strong>Quorumgate</strong> {seen?.cluster.cluster}
      </p>
      <nav aria-label="Pages">
        <ul>
          {PAGES.map(([name, title]) => (
            <li key={name}>
              <a href={link(name)} aria-current={name === at ? "page" : undefined}>
                {title}
              </a>
            </li>
          ))}
        </ul>
      </nav>
      <p class="where">
        <span id="served-by">
          node <strong>{seen?.node ?? "–"}</strong>, revision <strong>{seen?.cluster.revision ?? "–"}</strong>
        </span>
        {me && (
          <span>
            {me.name} ({me.role}
            {me.owner && `, owner ${me.owner}`})
          </span>
        )}
        <Theme />
        <button onClick={() => void leave()}>Sign out</button>
      </p>
    </header>
  );
}

const THEMES = ["auto", "light", "dark"] as const;

function Theme() {
  const kept = useSignal(localStorage.getItem("quorumgate-theme") ?? "auto");
  useEffect(() => {
    document.documentElement.dataset.theme = kept.value;
    localStorage.setItem("quorumgate-theme", kept.value);
    theme.value++;
  }, [kept.value]);
  return (
    <label>
      <span class="unseen">Colours</span>
      <select value={kept.value} onChange={(event) => (kept.value = event.currentTarget.value)}>
        {THEMES.map((it) => (
          <option key={it}>{it}</option>
        ))}
      </select>
    </label>
  );
}

/** What stands above every page: that it is old, that somebody is missing, that a trial is open. */
function Banners() {
  const seen = overview.value;
  const stale = staleFor.value;
  const missing = seen?.nodes.filter((it) => it.state === "unreachable").map((it) => it.name) ?? [];
  return (
    <div class="banners">
      {stale > 0 && (
        <p class="banner critical" role="status">
          stale for {stale} s: {seen ? `${seen.node} does not answer; what is shown is what it said last` : "this node does not answer"}
        </p>
      )}
      {seen && missing.length > 0 && (
        <p class="banner warning" role="status">
          {seen.answered} of {seen.nodes.length} nodes answered; no answer from {missing.join(", ")}
        </p>
      )}
      {seen?.trial && <Trial trial={seen.trial} />}
    </div>
  );
}
