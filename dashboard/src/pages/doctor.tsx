import { Command } from "../act";
import { Pending, State } from "../parts";
import { useLoaded } from "../state";
import { Table, type Column } from "../table";
import type { Finding } from "../types";

const RANKS = { critical: 0, warning: 1, unknown: 2, ok: 3 };

export function DoctorPage() {
  const doctor = useLoaded<{ verdict: Finding["level"]; findings: Finding[] }>("doctor");
  return (
    <>
      <h1>Doctor</h1>
      <p class="buttons">
        <button onClick={doctor.again}>Examine again</button>
      </p>
      {!doctor.data && <Pending error={doctor.error} what="how every node is" />}
      {doctor.data && (
        <>
          <p class={`verdict ${doctor.data.verdict}`}>
            <State level={doctor.data.verdict}>{doctor.data.verdict === "ok" ? "Nothing is wrong." : `The worst finding is ${doctor.data.verdict}.`}</State>
          </p>
          <Table caption="Findings" rows={doctor.data.findings} columns={COLUMNS} name={(it) => `${it.check}/${it.node ?? ""}/${it.found}`} text={(it) => `${it.check} ${it.node ?? ""} ${it.level} ${it.found} ${it.fix ?? ""}`} />
        </>
      )}
      <Command text="quorumgate doctor" />
    </>
  );
}

const COLUMNS: Column<Finding>[] = [
  { title: "Level", by: (it) => RANKS[it.level], cell: (it) => <State level={it.level}>{it.level}</State> },
  { title: "Check", by: (it) => it.check, cell: (it) => it.check },
  { title: "Node", by: (it) => it.node, cell: (it) => it.node ?? "all" },
  { title: "Found", cell: (it) => it.found },
  { title: "Allowed", cell: (it) => it.allowed ?? "–" },
  { title: "What to do", cell: (it) => it.fix ?? "–" },
];
