import { Act } from "../act";
import { micros, plural, quoted, span, when } from "../format";
import { State } from "../parts";
import { actsOnAll, administers, now, overview } from "../state";
import type { Node, Overview } from "../types";

const LEVELS = { ready: "ok", draining: "warning", joining: "warning", unreachable: "critical" } as const;
/** A certificate renews itself at a third of its life, long before this is left. */
const CERTIFICATE_LOW_MS = 12 * 3_600_000;

export function ClusterPage() {
  const seen = overview.value!;
  const regions = [...new Set(seen.nodes.map((it) => it.region))].sort();
  return (
    <>
      <h1>Cluster {seen.cluster.cluster}</h1>
      <p class="quiet">
        {plural(seen.nodes.length, "node")}, {plural(seen.cluster.voters, "voter")}; leader {seen.cluster.leader ?? "unknown"}, term{" "}
        {seen.cluster.term}; as {seen.node} sees it.
      </p>
      {regions.map((region) => (
        <section key={region} aria-label={`Region ${region}`}>
          <h2>Region {region}</h2>
          <div class="cards">
            {seen.nodes.filter((it) => it.region === region).map((it) => (
              <Card key={it.name} node={it} seen={seen} />
            ))}
          </div>
        </section>
      ))}
      <RoundTrips seen={seen} />
      {actsOnAll.value && (
        <p class="buttons">
          <Act
            label="Hand over leadership"
            title="Hand the leadership to another voter"
            command="quorumgate cluster transfer-leader"
            path="transfer-leader"
            done={(it) => `${it.leader} leads in term ${it.term}.`}
          />
        </p>
      )}
    </>
  );
}

function Card({ node, seen }: { node: Node; seen: Overview }) {
  const left = node.certificate_not_after ? Date.parse(node.certificate_not_after) - now.value : null;
  return (
    <article class="card" aria-label={`Node ${node.name}`}>
      <h3>
        {node.name} <State level={LEVELS[node.state] ?? "unknown"}>{node.state}</State>
      </h3>
      <dl class="facts">
        <div>
          <dt>role</dt>
          <dd>
            {node.role}
            {node.raft && node.raft !== node.role && `, ${node.raft}`}
          </dd>
        </div>
        <div>
          <dt>revision</dt>
          <dd>
            {node.state === "unreachable" ? "unknown" : node.revision}
            {node.state !== "unreachable" && node.revision < seen.cluster.revision && ` (newest ${seen.cluster.revision})`}
          </dd>
        </div>
        <div>
          <dt>lag</dt>
          <dd>{node.lag === null ? "unknown" : plural(node.lag, "entry", "entries")}</dd>
        </div>
        <div>
          <dt>certificate</dt>
          <dd title={when(node.certificate_not_after)}>
            {left === null ? "unknown" : `${span(left)} left`}
            {left !== null && left < CERTIFICATE_LOW_MS && <State level="warning">ends soon</State>}
          </dd>
        </div>
        <div>
          <dt>version</dt>
          <dd>{node.version ?? "unknown"}</dd>
        </div>
        <div>
          <dt>address</dt>
          <dd>{node.peer_address ?? "unknown"}</dd>
        </div>
      </dl>
      {node.problems.map((it) => (
        <p key={it}>
          <State level="warning">{it}</State>
        </p>
      ))}
      <Verbs node={node} />
    </article>
  );
}

function Verbs({ node }: { node: Node }) {
  if (!actsOnAll.value) return null;
  const at = `nodes/${encodeURIComponent(node.name)}`;
  const name = quoted(node.name);
  const done = () => "Done: the node's state follows within a moment.";
  return (
    <p class="buttons">
      {node.state === "draining" ? (
        <Act label="Undrain" title={`Let ${node.name} serve again`} command={`quorumgate node undrain ${name}`} path={`${at}/undrain`} done={done} />
      ) : (
        <Act label="Drain" title={`Take ${node.name} out of service`} command={`quorumgate node drain ${name}`} path={`${at}/drain`} done={done} danger>
          <p>It stops being ready, asks its clients to go elsewhere and hands over leadership. It can be undone at any time.</p>
        </Act>
      )}
      {administers.value &&
        (node.role === "voter" ? (
          <Act label="Demote" title={`Make ${node.name} a replica`} command={`quorumgate node demote ${name}`} path={`${at}/demote`} done={done} danger>
            <p>It goes on serving and no longer votes. What would lose the quorum is refused.</p>
          </Act>
        ) : (
          <Act label="Promote" title={`Make ${node.name} a voter`} command={`quorumgate node promote ${name}`} path={`${at}/promote`} done={done} />
        ))}
    </p>
  );
}

/** Round trips between nodes, against the time after which a silent leader is replaced. */
function RoundTrips({ seen }: { seen: Overview }) {
  if (seen.round_trips.length === 0) return null;
  const names = seen.nodes.map((it) => it.name);
  const took = new Map(seen.round_trips.map((it) => [`${it.from} ${it.to}`, it.us]));
  const limit = seen.election_timeout_us;
  return (
    <section>
      <h2 id="round-trips">Round trips</h2>
      <p class="quiet">
        Against an election timeout of {micros(limit)}: a tenth of it is much, a third too much. Rows have measured, columns have answered.
      </p>
      <div class="scroll" tabIndex={0} role="region" aria-labelledby="round-trips">
        <table>
          <thead>
            <tr>
              <th scope="col">from</th>
              {names.map((it) => (
                <th key={it} scope="col" class="number">
                  {it}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {names.map((from) => (
              <tr key={from}>
                <th scope="row">{from}</th>
                {names.map((to) => {
                  const us = took.get(`${from} ${to}`);
                  if (us === undefined) return <td key={to} class="number quiet">{from === to ? "" : "–"}</td>;
                  const level = us * 3 > limit ? "critical" : us * 10 > limit ? "warning" : "ok";
                  return (
                    <td key={to} class="number">
                      <State level={level}>{micros(us)}</State>
                    </td>
                  );
                })}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </section>
  );
}
