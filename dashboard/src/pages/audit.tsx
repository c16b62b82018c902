import { useState } from "preact/hooks";
import { Command, Failed } from "../act";
import { Refused, get } from "../api";
import { when } from "../format";
import { Pending, State } from "../parts";
import { link, overview, place, setWords, useLoaded } from "../state";
import { Table, type Column } from "../table";
import type { AuditEntry } from "../types";

const TRAILS = { mutations: "", denials: "&denials=true", accesses: "&access=true" } as const;
type Trail = keyof typeof TRAILS;
const LIMIT = 500;

export function AuditPage() {
  const asked = place.value.words.get("trail") ?? "mutations";
  const trail: Trail = asked in TRAILS ? (asked as Trail) : "mutations";
  const audit = useLoaded<{ entries: AuditEntry[] }>(`audit?limit=${LIMIT}${TRAILS[trail]}`);
  const flag = { mutations: "", denials: " --denials", accesses: " --access" }[trail];
  return (
    <>
      <h1>Audit</h1>
      <form class="row" onSubmit={(event) => event.preventDefault()}>
        <label>
          Trail
          <select value={trail} onChange={(event) => setWords({ trail: event.currentTarget.value })}>
            <option value="mutations">what was changed, in the whole cluster</option>
            <option value="denials">what {overview.value!.node} has refused</option>
            <option value="accesses">what {overview.value!.node} has let in</option>
          </select>
        </label>
        <Verify />
      </form>
      {!audit.data && <Pending error={audit.error} what="the trail" />}
      {audit.data && <Table caption="Audit trail" rows={audit.data.entries} columns={COLUMNS} name={(it) => String(it.sequence)} text={(it) => `${it.actor} ${it.source} ${it.rpc} ${it.summary} ${it.message}`} empty="nothing is remembered" />}
      <Command text={`quorumgate audit ls --limit ${LIMIT}${flag}`} />
    </>
  );
}

const COLUMNS: Column<AuditEntry>[] = [
  { title: "No.", number: true, by: (it) => it.sequence, cell: (it) => it.sequence },
  { title: "When", by: (it) => it.time, cell: (it) => when(it.time) },
  { title: "Who", by: (it) => it.actor, cell: (it) => it.actor },
  { title: "From", by: (it) => it.source, cell: (it) => it.source },
  { title: "Call", by: (it) => it.rpc, cell: (it) => it.rpc },
  { title: "What", cell: (it) => (it.revision === null ? it.summary || it.result : <a href={link("changes", String(it.revision))}>{it.summary || `revision ${it.revision}`}</a>) },
  { title: "Why", cell: (it) => it.message || "–" },
];

interface Verified {
  verdict: string;
  chains: { name: string; checked: number; first: number; last: number; altered: unknown[] }[];
}

function Verify() {
  const [answer, setAnswer] = useState<Verified | null>(null);
  const [error, setError] = useState<Refused | null>(null);
  const verify = () =>
    get<Verified>("audit/verify")
      .then((it) => (setAnswer(it), setError(null)))
      .catch((failed) => failed instanceof Refused && setError(failed));
  return (
    <>
      <button type="button" onClick={verify}>
        Verify the chains
      </button>
      <Failed error={error} />
      {answer && (
        <span role="status">
          <State level={answer.verdict === "whole" ? "ok" : "critical"}>{answer.verdict}</State>{" "}
          {answer.chains.map((it) => `${it.name}: ${it.checked} checked, ${it.altered.length} flaws`).join("; ")}
        </span>
      )}
    </>
  );
}
