import { Act, Command } from "../act";
import { Diff } from "../diff";
import { ago, when } from "../format";
import { Pending } from "../parts";
import { acts, link, now, overview, place, revisions, useLoaded } from "../state";
import { Table, type Column } from "../table";
import type { Revision, Words } from "../types";

export function ChangesPage() {
  const wanted = Number(place.value.parts[1]);
  if (!Number.isInteger(wanted) || wanted <= 0) return <All />;
  return <One key={wanted} revision={wanted} />;
}

const marks = (it: Revision) => [it.trial && `trial ${it.trial}`, it.rollback_of !== null && `rollback to ${it.rollback_of}`].filter(Boolean).join(", ");

const COLUMNS: Column<Revision>[] = [
  { title: "Revision", number: true, by: (it) => it.revision, cell: (it) => <a href={link("changes", String(it.revision))}>{it.revision}</a> },
  { title: "When", by: (it) => it.time, cell: (it) => <span title={when(it.time)}>{ago(it.time ? Date.parse(it.time) : null, now.peek())}</span> },
  { title: "Who", by: (it) => it.actor, cell: (it) => it.actor },
  { title: "What", cell: (it) => `+${it.changes.created} ~${it.changes.updated} -${it.changes.deleted}` },
  { title: "Why", by: (it) => it.message, cell: (it) => it.message || "–" },
  { title: "Marks", by: marks, cell: marks },
];

function All() {
  return (
    <>
      <h1>Changes</h1>
      <p class="quiet">The newest {revisions.value.length} revisions of the configuration.</p>
      {acts.value && revisions.value.length > 1 && (
        <p class="buttons">
          <Rollback to={null} />
        </p>
      )}
      <Table caption="Revisions" rows={revisions.value} columns={COLUMNS} name={(it) => String(it.revision)} text={(it) => `${it.revision} ${it.actor} ${it.message} ${marks(it)}`} empty="nothing was configured yet" />
      <Command text="quorumgate history" />
    </>
  );
}

function said(revision: number): string {
  const facts = revisions.value.find((it) => it.revision === revision);
  return facts ? ` of ${facts.actor}${facts.message && `: ${facts.message}`}` : "";
}

/** To one revision, or to the one before the newest. What stood then is written as a new revision. */
function Rollback({ to }: { to: number | null }) {
  const newest = overview.value!.cluster.revision;
  const target = to === null ? "previous=true" : `revision=${to}`;
  return (
    <Act
      label={to === null ? "Undo the last change" : `Roll back to ${to}`}
      title={to === null ? `Undo revision ${newest}${said(newest)}` : `Go back to what stood at revision ${to}`}
      command={`quorumgate rollback ${to ?? "--previous"} --if-revision ${newest}`}
      path={`rollback?${target}&if_revision=${newest}`}
      danger
    >
      <p>Routes, upstreams and all other configuration become what they were, as a new revision; keys and revocations stay. It can be undone the same way.</p>
    </Act>
  );
}

interface Changed {
  kind: string;
  name: string;
  action: string;
  before: Words | null;
  after: Words | null;
}

function One({ revision }: { revision: number }) {
  const all = revisions.value;
  const at = all.findIndex((it) => it.revision === revision);
  const facts = all[at];
  const older = at < 0 ? undefined : all[at + 1]?.revision;
  const from = Number(place.value.words.get("from") ?? older ?? 0);
  const newest = overview.value!.cluster.revision;
  const diff = useLoaded<{ from: number; to: number; objects: Changed[] }>(all.length ? `diff?from=${from}&to=${revision}` : null);
  return (
    <>
      <p>
        <a href={link("changes")}>All changes</a>
      </p>
      <h1>Revision {revision}</h1>
      {facts && (
        <p>
          {facts.actor}, {when(facts.time)}
          {facts.message && `: ${facts.message}`} <span class="quiet">{marks(facts)}</span>
        </p>
      )}
      <p class="buttons">
        {acts.value && revision !== newest && <Rollback to={revision} />}
        {acts.value && revision === newest && from > 0 && <Rollback to={from} />}
        {revision !== newest && <a href={`${link("changes", String(newest))}?from=${revision}`}>What has changed since</a>}
      </p>
      <h2>
        From revision {from} to {revision}
      </h2>
      <Command text={`quorumgate history diff ${from} ${revision}`} />
      {!diff.data && <Pending error={diff.error} what="what differs" />}
      {diff.data?.objects.length === 0 && <p>Nothing differs.</p>}
      {diff.data?.objects.map((it) => (
        <section key={`${it.kind}/${it.name}`} aria-label={`${it.kind} ${it.name}`}>
          <h3>
            {it.action} {it.kind} {it.name}
          </h3>
          <Diff before={text(it.before)} after={text(it.after)} />
        </section>
      ))}
    </>
  );
}

const text = (words: Words | null) => (words ? JSON.stringify(words, null, 2) : "");
