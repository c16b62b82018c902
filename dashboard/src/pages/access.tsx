import { useSignal } from "@preact/signals";
import { Act, Command } from "../act";
import { query } from "../api";
import { ago, count, micros, plural, quantile, quoted, when } from "../format";
import { Pending, State } from "../parts";
import { actsOnAll, link, now, overview, useLoaded } from "../state";
import { Table, type Column } from "../table";
import type { Words, Write } from "../types";

const KEYS = 1_000;

interface Key {
  id: string;
  consumer: string;
  kind: string;
  state: string;
  prefix: string | null;
  username: string | null;
  scopes: string[];
  created_at: string | null;
  expires_in: string | null;
}
interface Revocation {
  text: string;
  reason: string | null;
  actor: string;
  revision: number;
  time: string | null;
  expires_in: string | null;
}

interface Anomaly {
  policy: string;
  key: string;
  feature: string;
  value: number;
  over: number;
  action: string;
  state: "watched" | "in_force" | "banned" | "held_back" | "exempt";
  nodes: number;
  since: string | null;
  ends_in: string | null;
}

export function AccessPage() {
  const consumers = useLoaded<{ consumers: Words[] }>("consumers?stale=true");
  const keys = useLoaded<{ keys: Key[]; next_page_token: string | null }>(`keys?limit=${KEYS}&stale=true`);
  const revocations = useLoaded<{ revocations: Revocation[]; total: number }>("revocations?limit=200&stale=true");
  const { bounds_us, counts } = overview.value!.propagation;
  const spread = counts.reduce((all, it) => all + it, 0);
  return (
    <>
      <h1>Access</h1>
      <section>
        <h2>Revocations</h2>
        <p>
          {spread === 0 ? (
            <span class="quiet">None has come to {overview.value!.node} since it started.</span>
          ) : (
            <>
              {count(spread)} have come to {overview.value!.node} since it started; from the leader's stamp to the look-up of this node: p50{" "}
              <strong>{micros(quantile(counts, bounds_us, 0.5))}</strong>, p99 <strong>{micros(quantile(counts, bounds_us, 0.99))}</strong>.
            </>
          )}
        </p>
        {!revocations.data && <Pending error={revocations.error} what="what is revoked" />}
        {revocations.data && (
          <Table id="r" caption="Revocations" rows={revocations.data.revocations} columns={REVOCATIONS} name={(it) => it.text} text={(it) => `${it.text} ${it.reason ?? ""} ${it.actor}`} empty="nothing is revoked" />
        )}
        {actsOnAll.value ? <Revoke /> : <Command text="quorumgate token revoke --jti ID --issuer ISSUER --wait all-live" />}
      </section>
      <section>
        <h2>Keys</h2>
        {!keys.data && <Pending error={keys.error} what="the keys" />}
        {keys.data && (
          <>
            {keys.data.next_page_token && <p class="note">The first {count(KEYS)} are shown.</p>}
            <Table id="k" caption="Keys" rows={keys.data.keys} columns={keyColumns()} name={(it) => it.id} text={(it) => `${it.id} ${it.consumer} ${it.state} ${it.scopes.join(" ")}`} empty="there is no key" />
          </>
        )}
        {actsOnAll.value && consumers.data ? <NewKey consumers={consumers.data.consumers.map((it) => it.name)} /> : <Command text="quorumgate key create CONSUMER" />}
      </section>
      <Anomalies />
      <section>
        <h2>Consumers</h2>
        {!consumers.data && <Pending error={consumers.error} what="the consumers" />}
        {consumers.data && <Table id="c" caption="Consumers" rows={consumers.data.consumers} columns={CONSUMERS} name={(it) => it.name} text={(it) => `${it.name} ${list(it.groups)} ${it.owner ?? ""}`} empty="there is no consumer" />}
      </section>
    </>
  );
}

/** Who behaves unlike others, those who were found first. */
function Anomalies() {
  const found = useLoaded<{ anomalies: Anomaly[]; left_out: number; unanswered: string[] }>("anomalies?top=200");
  return (
    <section>
      <h2>Unusual callers</h2>
      {!found.data && <Pending error={found.error} what="who behaves unlike others" />}
      {found.data && (
        <>
          {found.data.left_out > 0 && <p class="note">{plural(found.data.left_out, "more caller")} are near a bound.</p>}
          {found.data.unanswered.length > 0 && <p class="note">No answer from {found.data.unanswered.join(", ")}: what was seen there is missing.</p>}
          <Table id="a" caption="Unusual callers" rows={found.data.anomalies} columns={ANOMALIES} name={(it) => `${it.policy}/${it.key}`} text={(it) => `${it.policy} ${it.key} ${it.feature} ${it.state}`} empty="nobody is near a bound of a policy of kind anomaly" />
        </>
      )}
      <Command text="quorumgate anomaly ls" />
    </section>
  );
}

/** A secret is in this answer and nowhere else: it goes with the dialog. */
function Made({ it }: { it: Write & { id: string; secret: string | null } }) {
  const serves = it.nodes.filter((node) => node.applied_revision >= it.revision).length;
  return (
    <>
      <p>
        The key {it.id}, known on {serves} of {plural(it.nodes.length, "node")}. Its secret is shown this once:
      </p>
      {it.secret && <Command text={it.secret} />}
    </>
  );
}

function NewKey({ consumers }: { consumers: string[] }) {
  const consumer = useSignal("");
  const scopes = useSignal("");
  const ends = useSignal("");
  const of = consumer.value || consumers[0] || "";
  const all = scopes.value.split(/[\s,]+/).filter(Boolean);
  const words = query({ consumer: of, expires_in: ends.value.trim() }) + all.map((it) => `&scope=${encodeURIComponent(it)}`).join("");
  const flags = [all.length > 0 && ` --scopes ${quoted(all.join(","))}`, ends.value.trim() && ` --expires ${quoted(ends.value.trim())}`];
  if (consumers.length === 0) return <Command text="quorumgate key create CONSUMER" />;
  return (
    <form class="row" onSubmit={(event) => event.preventDefault()} aria-label="A new key">
      <label>
        Consumer
        <select value={of} onChange={(event) => (consumer.value = event.currentTarget.value)}>
          {consumers.map((it) => (
            <option key={it}>{it}</option>
          ))}
        </select>
      </label>
      <label>
        Scopes
        <input value={scopes.value} placeholder="orders:read" onInput={(event) => (scopes.value = event.currentTarget.value)} />
      </label>
      <label>
        Ends in
        <input value={ends.value} placeholder="never, or 90d" onInput={(event) => (ends.value = event.currentTarget.value)} />
      </label>
      <Act label="Create" title={`Create a key of ${of}`} command={`quorumgate key create ${quoted(of)}${flags.filter(Boolean).join("")}`} path={`keys${words}`} done={(it) => <Made it={it} />} />
    </form>
  );
}

function Revoke() {
  const jti = useSignal("");
  const issuer = useSignal("");
  const reason = useSignal("");
  const [id, from, why] = [jti, issuer, reason].map((it) => it.value.trim()) as [string, string, string];
  const flags = [from && ` --issuer ${quoted(from)}`, why && ` --reason ${quoted(why)}`].filter(Boolean).join("");
  const done = (it: Write) => (it.noop ? "It was revoked before, for as long." : `Revoked: ${it.nodes.filter((node) => node.applied_revision >= it.revision).length} of ${plural(it.nodes.length, "node")} refuse it.`);
  return (
    <form class="row" onSubmit={(event) => event.preventDefault()} aria-label="A token to revoke">
      <label>
        Token id (jti)
        <input value={jti.value} onInput={(event) => (jti.value = event.currentTarget.value)} />
      </label>
      <label class="wide">
        Issuer
        <input value={issuer.value} placeholder="https://idp.example" onInput={(event) => (issuer.value = event.currentTarget.value)} />
      </label>
      <label class="wide">
        Why
        <input value={reason.value} onInput={(event) => (reason.value = event.currentTarget.value)} />
      </label>
      <Act label="Revoke" disabled={!id} title={`Revoke the token ${id}`} command={`quorumgate token revoke --jti ${quoted(id)}${flags} --wait all-live`} path={`revocations${query({ jti: id, issuer: from, reason: why })}`} done={done} danger>
        <p>Every node refuses it from then on, and ends its streams. It cannot be undone.</p>
      </Act>
    </form>
  );
}

const list = (value: unknown) => (Array.isArray(value) ? value.join(", ") : "");

const REVOCATIONS: Column<Revocation>[] = [
  { title: "What", by: (it) => it.text, cell: (it) => <code class="cut">{it.text}</code> },
  { title: "When", by: (it) => it.time, cell: (it) => when(it.time) },
  { title: "By", by: (it) => it.actor, cell: (it) => it.actor },
  { title: "Why", by: (it) => it.reason, cell: (it) => it.reason ?? "–" },
  { title: "Kept for", cell: (it) => it.expires_in ?? "–" },
];

const ANOMALIES: Column<Anomaly>[] = [
  { title: "Caller", by: (it) => it.key, cell: (it) => <code class="cut">{it.key}</code> },
  { title: "Policy", by: (it) => it.policy, cell: (it) => <a href={link("objects", "policies", it.policy)}>{it.policy}</a> },
  { title: "State", by: (it) => it.state, cell: (it) => <State level={it.state === "watched" ? "ok" : "warning"}>{it.state.replace("_", " ")}</State> },
  { title: "What", by: (it) => it.feature, cell: (it) => it.feature.replace("_", " ") },
  { title: "Seen", by: (it) => it.value / Math.max(it.over, 1), cell: (it) => `${count(it.value)} of ${count(it.over)}` },
  { title: "Action", by: (it) => it.action, cell: (it) => it.action },
  { title: "Nodes", by: (it) => it.nodes, cell: (it) => count(it.nodes) },
  { title: "Since", by: (it) => it.since, cell: (it) => when(it.since) },
  { title: "Ends in", cell: (it) => it.ends_in ?? "–" },
];

const CONSUMERS: Column<Words>[] = [
  { title: "Name", by: (it) => it.name, cell: (it) => <a href={link("objects", "consumers", it.name)}>{it.name}</a> },
  { title: "Groups", by: (it) => list(it.groups), cell: (it) => list(it.groups) || "–" },
  { title: "Plan", by: (it) => String(it.plan ?? ""), cell: (it) => String(it.plan ?? "–") },
  { title: "Owner", by: (it) => String(it.owner ?? ""), cell: (it) => String(it.owner || "–") },
];

const keyColumns = (): Column<Key>[] => [
  { title: "Id", by: (it) => it.id, cell: (it) => <code>{it.id}</code> },
  { title: "Consumer", by: (it) => it.consumer, cell: (it) => it.consumer },
  { title: "Kind", by: (it) => it.kind, cell: (it) => (it.username ? `${it.kind} ${it.username}` : it.kind) },
  { title: "State", by: (it) => it.state, cell: (it) => <State level={it.state === "active" ? "ok" : "warning"}>{it.state}</State> },
  { title: "Made", by: (it) => it.created_at, cell: (it) => <span title={when(it.created_at)}>{ago(it.created_at ? Date.parse(it.created_at) : null, now.peek())}</span> },
  { title: "Ends in", cell: (it) => it.expires_in ?? "never" },
  { title: "Scopes", cell: (it) => it.scopes.join(" ") || "–" },
  ...(actsOnAll.value ? [{ title: "Actions", cell: (it: Key) => <Verbs it={it} /> }] : []),
];

function Verbs({ it }: { it: Key }) {
  const path = `keys/${encodeURIComponent(it.id)}`;
  const done = () => "Done: every node in reach knows it.";
  return (
    <span class="buttons">
      {it.state === "disabled" ? (
        <Act label="Enable" title={`Enable the key ${it.id}`} command={`quorumgate key enable ${quoted(it.id)}`} path={`${path}/enable`} done={done} />
      ) : (
        <Act label="Disable" title={`Disable the key ${it.id}`} command={`quorumgate key disable ${quoted(it.id)}`} path={`${path}/disable`} done={done} />
      )}
      {it.kind === "api_key" && it.state === "active" && (
        <Act label="Rotate" title={`Make a key in the place of ${it.id}`} command={`quorumgate key rotate ${quoted(it.id)} --overlap 24h`} path={`${path}/rotate?overlap=24h`} done={(made) => <Made it={made} />}>
          <p>The new key has the same consumer, scopes and end; the old one is good for another 24 hours.</p>
        </Act>
      )}
      <Act label="Revoke" title={`Revoke the key ${it.id}, for good`} command={`quorumgate key revoke ${quoted(it.id)}`} path={`${path}/revoke`} done={done} danger>
        <p>Requests and streams that use it end within a second. It cannot be undone.</p>
      </Act>
    </span>
  );
}
