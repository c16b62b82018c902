// One route: how it does, what stands behind it, how it came to be so, and what it would do.

import { Act, Command } from "../act";
import { Charts } from "../charts";
import { Editor } from "../editor";
import { percent, quoted, span, success, when } from "../format";
import { Heat } from "../heat";
import { useLately } from "../lately";
import { Pending, State, Unanswered } from "../parts";
import { acts, link, useLoaded } from "../state";
import { Try } from "../try";
import type { AuditEntry, Words } from "../types";
import { leadsTo, matches } from "./routes";

const HEALTH_EVERY_MS = 5_000;

export function RoutePage({ name }: { name: string }) {
  const path = `routes/${encodeURIComponent(name)}`;
  const route = useLoaded<Words & { etag: string }>(path);
  const lately = useLately(name);
  const it = route.data;
  const upstreams = it ? leadsTo(it).split(", ").filter((to) => /^[\w.-]+$/.test(to) && to !== "–") : [];
  const sum = lately.frames.slice(-60).reduce((all, frame) => ({ ...all, requests: all.requests + frame.requests, server_errors: all.server_errors + frame.server_errors }), { requests: 0, server_errors: 0, client_errors: 0, durations: [] });
  return (
    <>
      <p>
        <a href={link("routes")}>All routes</a>
      </p>
      <h1>Route {name}</h1>
      {it ? (
        <p>
          <code>{matches(it)}</code> → {leadsTo(it)}
          <span class="quiet">
            {" "}
            owner {String(it.owner || "none")}; success in the last minutes {percent(success(sum))}
          </span>
        </p>
      ) : (
        <Pending error={route.error} what={name} />
      )}
      <Unanswered names={lately.unanswered} />
      {lately.frames.length > 0 && <Heat frames={lately.frames} bounds={lately.bounds} />}
      <Charts lately={lately} />
      {upstreams.map((to) => (
        <Targets key={to} upstream={to} />
      ))}
      <section>
        <h2>Try a request</h2>
        <Try route={it} />
      </section>
      {it && (
        <section>
          <h2>Configuration</h2>
          <Editor kind="routes" name={name} may={acts.value} />
          {acts.value && (
            <p class="buttons">
              <Act label="Delete" title={`Delete the route ${name}`} command={`quorumgate route rm ${quoted(name)}`} method="DELETE" path={`${path}?message=${encodeURIComponent(`delete ${name}`)}&etag=${encodeURIComponent(it.etag)}`} danger>
                <p>Requests that it takes go to other routes, or are answered 404. A rollback brings it back.</p>
              </Act>
            </p>
          )}
        </section>
      )}
      <History object={`route/${name}`} />
    </>
  );
}

interface Target {
  target: string;
  state: string;
  in_flight: number;
  ejected_for: string | null;
  zone: string | null;
}
interface Health {
  nodes: { node: string; region: string; breaker: string | null; targets: Target[] }[];
  unanswered: string[];
}

const LEVELS: Record<string, "ok" | "warning" | "critical"> = { up: "ok", partly: "warning", ejected: "critical", down: "critical" };

function Targets({ upstream }: { upstream: string }) {
  const health = useLoaded<Health>(`upstreams/${encodeURIComponent(upstream)}/health`, HEALTH_EVERY_MS);
  return (
    <section>
      <h2 id={`up-${upstream}`}>
        Targets of <a href={link("objects", "upstreams", upstream)}>{upstream}</a>
      </h2>
      {!health.data && <Pending error={health.error} what="their health" />}
      {health.data && (
        <>
          <Unanswered names={health.data.unanswered} />
          <div class="scroll" tabIndex={0} role="region" aria-labelledby={`up-${upstream}`}>
            <table>
              <thead>
                <tr>
                  <th scope="col">node</th>
                  <th scope="col">target</th>
                  <th scope="col">state</th>
                  <th scope="col" class="number">
                    in flight
                  </th>
                  <th scope="col">breaker</th>
                </tr>
              </thead>
              <tbody>
                {health.data.nodes.flatMap((node) =>
                  node.targets.map((it) => (
                    <tr key={`${node.node} ${it.target}`}>
                      <td>{node.node}</td>
                      <td>{it.target}</td>
                      <td>
                        <State level={LEVELS[it.state] ?? "unknown"}>{it.state}</State>
                        {it.ejected_for && ` for ${it.ejected_for}`}
                      </td>
                      <td class="number">{it.in_flight}</td>
                      <td>{node.breaker ?? "none"}</td>
                    </tr>
                  )),
                )}
              </tbody>
            </table>
          </div>
        </>
      )}
      <Command text={`quorumgate upstream health ${quoted(upstream)}`} />
    </section>
  );
}

/** What was written to one object, by whom. */
export function History({ object }: { object: string }) {
  const audit = useLoaded<{ entries: AuditEntry[] }>(`audit?limit=20&object=${encodeURIComponent(object)}`);
  return (
    <section>
      <h2>Its history</h2>
      {!audit.data && <Pending error={audit.error} what="its history" />}
      {audit.data && (
        <ol class="history">
          {audit.data.entries.map((it) => (
            <li key={it.sequence}>
              <time title={it.time ?? ""}>{when(it.time)}</time> ({it.time ? `${span(Date.now() - Date.parse(it.time))} ago` : ""}) {it.actor}
              {it.revision !== null && (
                <>
                  {": "}
                  <a href={link("changes", String(it.revision))}>revision {it.revision}</a>
                </>
              )}{" "}
              {it.message || it.summary}
            </li>
          ))}
          {audit.data.entries.length === 0 && <li class="quiet">nothing that is remembered</li>}
        </ol>
      )}
    </section>
  );
}
