// Everything that is configured, of whatever kind: its words, who wrote them, and a change of them.

import { useSignal } from "@preact/signals";
import { useMemo } from "preact/hooks";
import { Act, Command } from "../act";
import { Editor } from "../editor";
import { quoted } from "../format";
import { Pending } from "../parts";
import { acts, administers, link, place, useLoaded } from "../state";
import { Table, type Column } from "../table";
import type { Words } from "../types";
import { History } from "./route";

/** The lists of a configuration file, and the command's word for one of each. */
const KINDS: Record<string, string> = {
  routes: "route",
  upstreams: "upstream",
  consumers: "consumer",
  auth: "auth",
  limits: "limit",
  policies: "policy",
  certificates: "certificate",
  certificate_authorities: "certificate_authority",
  listeners: "listener",
  tenants: "tenant",
  guardrails: "guardrail",
};
/** What binds all others is written by admins. */
const GOVERNING = ["tenants", "guardrails"];

const mayWrite = (kind: string) => (GOVERNING.includes(kind) ? administers.value : acts.value);
const at = (kind: string, name: string) => (kind === "routes" ? link("routes", name) : link("objects", kind, name));

export function ObjectsPage() {
  const [, kind, name] = place.value.parts;
  return kind && name && kind in KINDS ? <One key={`${kind}/${name}`} kind={kind} name={name} /> : <All />;
}

interface Row {
  kind: string;
  name: string;
  owner: string;
  description: string;
  labels: string;
}

function All() {
  const config = useLoaded<Record<string, Words[]>>("config?stale=true");
  const rows = useMemo<Row[]>(() => {
    const row = (kind: string, it: Words): Row => {
      const labels = Object.entries((it.labels ?? {}) as Record<string, string>).map(([key, value]) => `${key}=${value}`);
      return { kind, name: it.name, owner: String(it.owner ?? ""), description: String(it.description ?? ""), labels: labels.join(" ") };
    };
    return Object.keys(KINDS).flatMap((kind) => (config.data?.[kind] ?? []).map((it) => row(kind, it)));
  }, [config.data]);
  if (!config.data) return <Pending error={config.error} what="the configuration" />;
  return (
    <>
      <h1>Objects</h1>
      <Table
        caption="Objects"
        rows={rows}
        columns={COLUMNS}
        name={(it) => `${it.kind}/${it.name}`}
        text={(it) => `${it.kind} ${it.name} ${it.owner} ${it.description} ${it.labels}`}
        empty="nothing is configured yet"
      />
      <Command text="quorumgate export" />
      {acts.value && <New />}
    </>
  );
}

const COLUMNS: Column<Row>[] = [
  { title: "Kind", by: (it) => it.kind, cell: (it) => KINDS[it.kind] },
  { title: "Name", by: (it) => it.name, cell: (it) => <a href={at(it.kind, it.name)}>{it.name}</a> },
  { title: "Owner", by: (it) => it.owner, cell: (it) => it.owner || "–" },
  { title: "Labels", by: (it) => it.labels, cell: (it) => it.labels || "–" },
  { title: "What for", by: (it) => it.description, cell: (it) => it.description || "–" },
];

function New() {
  const kind = useSignal("routes");
  const name = useSignal("");
  const open = (event: Event) => {
    event.preventDefault();
    if (name.value.trim()) location.hash = link("objects", kind.value, name.value.trim());
  };
  return (
    <form class="row" onSubmit={open} aria-label="A new object">
      <label>
        Kind
        <select value={kind.value} onChange={(event) => (kind.value = event.currentTarget.value)}>
          {Object.entries(KINDS)
            .filter(([list]) => mayWrite(list))
            .map(([list, word]) => (
              <option key={list} value={list}>
                {word}
              </option>
            ))}
        </select>
      </label>
      <label>
        Name
        <input value={name.value} onInput={(event) => (name.value = event.currentTarget.value)} />
      </label>
      <button>New object</button>
    </form>
  );
}

function One({ kind, name }: { kind: string; name: string }) {
  const word = KINDS[kind]!;
  const path = `${kind}/${encodeURIComponent(name)}`;
  const object = useLoaded<Words & { etag: string }>(path);
  const it = object.data;
  return (
    <>
      <p>
        <a href={link("objects")}>All objects</a>
      </p>
      <h1>
        {word.replace("_", " ")} {name}
      </h1>
      {it && <p class="quiet">{String(it.description || "")} owner {String(it.owner || "none")}</p>}
      <Editor kind={kind} name={name} may={mayWrite(kind)} />
      {it && mayWrite(kind) && (
        <p class="buttons">
          <Act
            label="Delete"
            title={`Delete the ${word.replace("_", " ")} ${name}`}
            command={`quorumgate ${word.replace("_", "-")} rm ${quoted(name)}`}
            method="DELETE"
            path={`${path}?message=${encodeURIComponent(`delete ${name}`)}&etag=${encodeURIComponent(it.etag)}`}
            danger
          >
            <p>What still refers to it keeps it from being deleted. A rollback brings it back.</p>
          </Act>
        </p>
      )}
      <History object={`${word}/${name}`} />
    </>
  );
}
