import { Charts } from "../charts";
import { plural } from "../format";
import { useLately } from "../lately";
import { Figure, State, Unanswered } from "../parts";
import { link, overview, revisions, staleFor } from "../state";
import type { Overview } from "../types";
import { when } from "../format";

type Level = "ok" | "warning" | "critical" | "unknown";

/** The whole cluster in one sentence. */
export function verdict(seen: Overview, stale: number): [Level, string] {
  const { cluster, nodes, answered } = seen;
  if (stale) return ["unknown", `${seen.node} has said nothing for ${stale} s: how the cluster is now is not known here.`];
  if (!cluster.leader) return ["critical", "No leader is known: traffic goes on, changes are refused until one is elected."];
  if (answered < nodes.length) {
    const left = cluster.failure_tolerance;
    const rest = left > 0 ? `${plural(left, "more voter")} may fail` : "no further voter may fail";
    return [left > 0 ? "warning" : "critical", `${answered} of ${nodes.length} nodes answer; ${rest}.`];
  }
  if (cluster.findings.length > 0) return ["warning", `${plural(nodes.length, "node")} answer, but ${cluster.findings[0]}.`];
  const behind = nodes.filter((it) => it.revision < cluster.revision);
  if (behind.length > 0) return ["warning", `${behind.map((it) => it.name).join(", ")} does not serve revision ${cluster.revision} yet.`];
  const all = nodes.length === 1 ? "The only node serves" : `All ${nodes.length} nodes serve`;
  const spare = cluster.failure_tolerance;
  return ["ok", `${all} revision ${cluster.revision}; ${spare > 0 ? `${plural(spare, "voter")} may fail` : "no voter may fail"}.`];
}

export function OverviewPage() {
  const lately = useLately();
  const seen = overview.value!;
  const { cluster, nodes } = seen;
  const [level, sentence] = verdict(seen, staleFor.value);
  const serving = nodes.filter((it) => it.state !== "unreachable" && it.revision >= cluster.revision).length;
  const newest = revisions.value[0];
  return (
    <>
      <div class={`verdict ${level}`} id="verdict" role="status">
        <h1>
          <State level={level}>{sentence}</State>
        </h1>
      </div>
      <dl class="figures">
        <Figure title="Leader" note={`term ${cluster.term}`}>
          <a href={link("cluster")}>{cluster.leader ?? "none"}</a>
        </Figure>
        <Figure title="Failure tolerance" note={`of ${plural(cluster.voters, "voter")}`}>
          {cluster.failure_tolerance}
        </Figure>
        <Figure title="Revision" note={newest && newest.revision === cluster.revision ? `${newest.actor}, ${when(newest.time)}` : ""}>
          <a href={link("changes")}>{cluster.revision}</a>
        </Figure>
        <Figure title="Serve it" note="of the nodes">
          {serving} of {nodes.length}
        </Figure>
        <Figure title="Keys">
          <a href={link("access")}>{seen.keys}</a>
        </Figure>
        <Figure title="Revocations">
          <a href={link("access")} id="revocation-count">
            {seen.revocations}
          </a>
        </Figure>
      </dl>
      {cluster.findings.length > 0 && (
        <ul class="findings" aria-label="Findings">
          {cluster.findings.map((it) => (
            <li key={it}>{it}</li>
          ))}
        </ul>
      )}
      <Unanswered names={lately.unanswered} />
      <Charts lately={lately} />
    </>
  );
}
