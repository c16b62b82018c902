// Requests of the serving node as they end; a click explains one, whichever node served it.

import { useEffect, useRef, useState } from "preact/hooks";
import { Command, Failed } from "../act";
import { Refused, events, query } from "../api";
import { bytes, clock, count, micros, quoted } from "../format";
import { Facts, Pending } from "../parts";
import { link, overview, place, setWords, useLoaded } from "../state";
import { Try } from "../try";
import type { Exchange } from "../types";

const KEPT = 200;
/** Redrawn so often at most, however fast they come. */
const DRAWN_EVERY_MS = 250;
const FILTERS = ["route", "status", "code", "consumer"] as const;
const ONE_IN = ["1", "10", "100", "1000"];

export function TrafficPage() {
  const id = place.value.parts[1];
  return id === undefined ? <Tap /> : <Explained key={id} id={id} />;
}

function Tap() {
  const words = place.value.words;
  const [runs, setRuns] = useState(true);
  const [shown, setShown] = useState<Exchange[]>([]);
  const [dropped, setDropped] = useState(0);
  const [error, setError] = useState<Refused | null>(null);
  const filter = Object.fromEntries(FILTERS.map((it) => [it, words.get(it) ?? ""])) as Record<(typeof FILTERS)[number], string>;
  const one_in = words.get("one_in") ?? "1";
  const path = `tap${query({ ...filter, one_in: one_in === "1" ? "" : one_in })}`;
  const waiting = useRef<Exchange[]>([]);

  useEffect(() => {
    if (!runs) return;
    const stop = new AbortController();
    // Who is still writing a filter asks for nothing yet.
    const start = setTimeout(() => {
      setError(null);
      events(path, stop.signal, (event) => {
        waiting.current.unshift(event.exchange);
        waiting.current.length = Math.min(waiting.current.length, KEPT);
        setDropped(event.dropped);
      }).catch((failed) => {
        if (failed instanceof Refused && !stop.signal.aborted) setError(failed);
      });
    }, 300);
    const draw = setInterval(() => {
      if (waiting.current.length === 0) return;
      const fresh = waiting.current;
      waiting.current = [];
      setShown((old) => [...fresh, ...old].slice(0, KEPT));
    }, DRAWN_EVERY_MS);
    return () => {
      clearTimeout(start);
      clearInterval(draw);
      stop.abort();
    };
  }, [path, runs]);

  const flags = FILTERS.map((it) => filter[it] && ` --${it} ${quoted(filter[it])}`).join("");
  return (
    <>
      <h1>Traffic</h1>
      <p class="quiet">Requests of {overview.value?.node} as they end; the other nodes show theirs on their own pages.</p>
      <form class="row" onSubmit={(event) => event.preventDefault()}>
        {FILTERS.map((it) => (
          <label key={it}>
            {it}
            <input value={filter[it]} placeholder={it === "status" ? "5xx" : "any"} onInput={(event) => setWords({ [it]: event.currentTarget.value.trim() })} />
          </label>
        ))}
        <label>
          one in
          <select value={one_in} onChange={(event) => setWords({ one_in: event.currentTarget.value })}>
            {ONE_IN.map((it) => (
              <option key={it}>{it}</option>
            ))}
          </select>
        </label>
        <button type="button" aria-pressed={!runs} onClick={() => setRuns(!runs)}>
          {runs ? "Pause" : "Go on"}
        </button>
      </form>
      <Command text={`quorumgate tap${flags}${one_in === "1" ? "" : ` --one-in ${one_in}`}`} />
      <Failed error={error} />
      {dropped > 0 && <p class="note">{count(dropped)} came too fast and are not shown; ask for one in more.</p>}
      <div class="scroll" tabIndex={0} role="region" aria-label="Requests">
        <table>
          <thead>
            <tr>
              {["time", "status", "method", "host and path", "route", "consumer"].map((it) => (
                <th key={it} scope="col">
                  {it}
                </th>
              ))}
              <th scope="col" class="number">
                took
              </th>
            </tr>
          </thead>
          <tbody id="tap">
            {shown.map((it) => (
              <tr key={it.request_id}>
                <td>
                  <a href={link("traffic", it.request_id)}>{clock(Date.parse(it.time))}</a>
                </td>
                <td class={it.status >= 500 ? "bad" : ""}>
                  {it.status} {it.code}
                </td>
                <td>{it.method}</td>
                <td>
                  <code class="cut">
                    {it.host}
                    {it.path}
                  </code>
                </td>
                <td>{it.route ?? "–"}</td>
                <td>{it.consumer ?? "–"}</td>
                <td class="number">{micros(it.timings_us.total)}</td>
              </tr>
            ))}
            {shown.length === 0 && (
              <tr>
                <td colSpan={7} class="quiet">
                  {runs ? "waiting for the next one" : "paused"}
                </td>
              </tr>
            )}
          </tbody>
        </table>
      </div>
      <section>
        <h2>Try a request</h2>
        <Try />
      </section>
    </>
  );
}

function Explained({ id }: { id: string }) {
  const found = useLoaded<Exchange>(`requests/${encodeURIComponent(id)}`);
  const it = found.data;
  return (
    <>
      <p>
        <a href={link("traffic")}>All traffic</a>
      </p>
      <h1>Request {id}</h1>
      <Command text={`quorumgate explain request ${quoted(id)}`} />
      {!it && <Pending error={found.error} what="what is remembered of it" />}
      {it && (
        <>
          <p class="verdict">
            {it.status} {it.code}
          </p>
          {it.when && <p>{it.when}</p>}
          {it.help && <p>Help: {it.help}</p>}
          <Facts
            facts={[
              ["request", <code>{`${it.method} ${it.host ?? ""}${it.path ?? ""} (${it.protocol})`}</code>],
              ["from", it.client_ip],
              ["at", `${it.time} on ${it.node} (${it.region}), revision ${it.revision}`],
              ["route", it.route && <a href={link("routes", it.route)}>{it.route}</a>],
              ["consumer", it.consumer],
              ["credential", it.credential && `${it.credential}, by ${it.auth_method}`],
              ["decided by", it.decision.phase && [it.decision.phase, it.decision.policy, it.decision.rule].filter(Boolean).join(", ")],
              ["numbers", Object.entries(it.decision.numbers).map(([name, value]) => `${name} ${value}`).join(", ") || null],
              ["detail", it.detail],
              ["in the gateway", micros(it.timings_us.gateway)],
              ["connecting", micros(it.timings_us.connect)],
              ["first byte", micros(it.timings_us.ttfb)],
              ["in all", micros(it.timings_us.total)],
              ["upstream", it.upstream.address && `${it.upstream.address}, ${it.upstream.attempts} attempts`],
              ["bytes", `${bytes(it.received_bytes)} in, ${bytes(it.sent_bytes)} out`],
              ["trace", it.trace_id],
            ]}
          />
        </>
      )}
    </>
  );
}
