import { useEffect, useState } from "preact/hooks";
import { Command, Failed } from "../act";
import { Refused, events } from "../api";
import { count, quoted } from "../format";
import { Pending, State, Unanswered } from "../parts";
import { link, overview, useLoaded } from "../state";
import { Table, type Column } from "../table";
import type { Exchange } from "../types";

const EVERY_MS = 5_000;

interface Key {
  key: string;
  used: number;
  limit: number;
  free: number;
  resets_in: string | null;
  nodes: { node: string; region: string; held: number; used: number; demand: number }[];
}
interface Limit {
  limit: string;
  kind: string;
  mode: string;
  per: string[];
  soft: boolean;
  broken: string | null;
  budget: number;
  window: string | null;
  ledger_keys: number;
  keys: Key[];
  decisions: { node: string; admitted: number; refused: number; let_through: number; unavailable: number }[];
}

export function LimitsPage() {
  const usage = useLoaded<{ limits: Limit[]; unanswered: string[] }>("usage?top=20", EVERY_MS);
  if (!usage.data) return <Pending error={usage.error} what="what is used" />;
  return (
    <>
      <h1>Limits</h1>
      <Unanswered names={usage.data.unanswered} />
      {usage.data.limits.length === 0 && <p class="quiet">there is no limit yet</p>}
      {usage.data.limits.map((it) => (
        <One key={it.limit} limit={it} />
      ))}
      <Denied />
    </>
  );
}

function One({ limit }: { limit: Limit }) {
  const sum = (take: (it: Limit["decisions"][number]) => number) => limit.decisions.reduce((all, it) => all + take(it), 0);
  const refused = sum((it) => it.refused);
  const regions = new Map<string, { used: number; held: number }>();
  for (const it of limit.keys.flatMap((key) => key.nodes)) {
    const region = regions.get(it.region) ?? { used: 0, held: 0 };
    regions.set(it.region, { used: region.used + it.used, held: region.held + it.held });
  }
  const free = limit.keys.reduce((all, it) => all + it.free, 0);
  return (
    <section aria-label={`Limit ${limit.limit}`}>
      <h2>
        <a href={link("objects", "limits", limit.limit)}>{limit.limit}</a>
      </h2>
      <p>
        {count(limit.budget)}
        {limit.window ? ` in ${limit.window}` : " at once"} per {limit.per.join(", ") || "all together"}; {limit.kind}, {limit.mode}
        {limit.soft && ", soft: it refuses nothing"}.{" "}
        <span class="quiet">
          {count(limit.ledger_keys)} keys in the ledger; since the nodes started {count(sum((it) => it.admitted))} admitted,{" "}
          {count(refused)} refused, {count(sum((it) => it.let_through))} let through.
        </span>
      </p>
      {limit.broken && <State level="critical">{limit.broken}</State>}
      {regions.size > 0 && (
        <ul class="inline" aria-label="By region">
          {[...regions].sort().map(([region, it]) => (
            <li key={region}>
              <strong>{region}</strong> used {count(it.used)}, held {count(it.held)}
            </li>
          ))}
          <li>
            <strong>free</strong> {count(free)}
          </li>
        </ul>
      )}
      <Table id={`${limit.limit}-`} caption={`Top keys of ${limit.limit}`} rows={limit.keys} columns={COLUMNS} name={(it) => it.key} empty="no key is in use" />
      {refused > 0 && (
        <p>
          Refused by node: {limit.decisions.filter((it) => it.refused > 0).map((it) => `${it.node} ${count(it.refused)}`).join(", ")}.
        </p>
      )}
      <Command text={`quorumgate limit usage ${quoted(limit.limit)}`} />
    </section>
  );
}

/** Callers that are told apart; the ones that came first stay. */
const CALLERS_MAX = 200;

interface Caller {
  who: string;
  limit: string;
  route: string;
  times: number;
  last: string;
}

/** Counted while one looks: nobody keeps a list of callers for that. */
function Denied() {
  const [callers, setCallers] = useState<Caller[]>([]);
  const [error, setError] = useState<Refused | null>(null);
  useEffect(() => {
    const stop = new AbortController();
    const seen = new Map<string, Caller>();
    events("tap?code=rate_limited", stop.signal, ({ exchange: it }: { exchange: Exchange }) => {
      const who = it.consumer ?? it.client_ip;
      const limit = it.decision.policy ?? it.decision.rule ?? "–";
      const key = `${who} ${limit} ${it.route}`;
      const known = seen.get(key);
      if (!known && seen.size >= CALLERS_MAX) return;
      seen.set(key, { who, limit, route: it.route ?? "–", times: (known?.times ?? 0) + 1, last: it.request_id });
    }).catch((failed) => {
      if (failed instanceof Refused && !stop.signal.aborted) setError(failed);
    });
    const drawn = setInterval(() => setCallers((old) => (seen.size || old.length ? [...seen.values()] : old)), 500);
    return () => {
      clearInterval(drawn);
      stop.abort();
    };
  }, []);
  return (
    <section id="denied">
      <h2>Who is denied</h2>
      <p class="quiet">Counted on {overview.value?.node} since this page was opened.</p>
      <Failed error={error} />
      <Table id="d" caption="Who is denied" rows={callers} columns={DENIED} name={(it) => `${it.who} ${it.limit} ${it.route}`} empty="nobody yet" />
      <Command text="quorumgate tap --code rate_limited" />
    </section>
  );
}

const DENIED: Column<Caller>[] = [
  { title: "Who", by: (it) => it.who, cell: (it) => <code class="cut">{it.who}</code> },
  { title: "Limit", by: (it) => it.limit, cell: (it) => it.limit },
  { title: "Route", by: (it) => it.route, cell: (it) => it.route },
  { title: "Times", number: true, by: (it) => it.times, cell: (it) => count(it.times) },
  { title: "Last", cell: (it) => <a href={link("traffic", it.last)}>explain</a> },
];

const COLUMNS: Column<Key>[] = [
  { title: "Key", by: (it) => it.key, cell: (it) => <code class="cut">{it.key || "(all together)"}</code> },
  { title: "Used", number: true, by: (it) => it.used, cell: (it) => <Bar used={it.used} of={it.limit} /> },
  { title: "Held", number: true, by: (it) => held(it), cell: (it) => count(held(it)) },
  { title: "Free", number: true, by: (it) => it.free, cell: (it) => count(it.free) },
  { title: "Resets in", cell: (it) => it.resets_in ?? "–" },
  { title: "Nodes", cell: (it) => it.nodes.filter((node) => node.used + node.held > 0).map((node) => `${node.node} ${node.used}+${node.held}`).join(", ") || "–" },
];

const held = (it: Key) => it.nodes.reduce((all, node) => all + node.held, 0);

function Bar({ used, of }: { used: number; of: number }) {
  return (
    <span class="bar">
      <meter min={0} max={Math.max(1, of)} high={Math.max(1, of) * 0.8} value={Math.min(used, of)} aria-label={`${used} of ${of} used`} />
      {count(used)} of {count(of)}
    </span>
  );
}
