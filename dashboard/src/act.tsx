// What changes the cluster: a button that first says what it does and which command does the same.

import { signal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { Refused, call } from "./api";
import { plural } from "./format";
import type { Write } from "./types";

/** The command that does the same, to be copied. */
export function Command({ text }: { text: string }) {
  const [copied, setCopied] = useState(false);
  const copy = () => navigator.clipboard?.writeText(text).then(() => setCopied(true), () => setCopied(false));
  return (
    <p class="command">
      <code tabIndex={0}>{text}</code>
      <button onClick={copy} aria-label="Copy the command">
        {copied ? "copied" : "copy"}
      </button>
    </p>
  );
}

export function Failed({ error }: { error: Refused | null }) {
  if (!error) return null;
  return (
    <div class="failed" role="alert">
      <p>
        {error.code && <strong>{error.code}: </strong>}
        {error.message}
      </p>
      {error.fields.length > 0 && (
        <ul>
          {error.fields.map((it) => (
            <li key={it.field}>
              <code>{it.field}</code>: {it.message}
            </li>
          ))}
        </ul>
      )}
      {error.requestId && <p class="quiet">request id {error.requestId}</p>}
    </div>
  );
}

/** `revision 43 active on 3/3 nodes` */
export function Written({ it }: { it: Write }) {
  const serves = it.nodes.filter((node) => node.applied_revision >= it.revision).length;
  const late = it.nodes.filter((node) => node.applied_revision < it.revision).map((node) => node.name);
  return (
    <div class="done" role="status">
      <p>
        {it.noop ? "Nothing differed: no revision was made." : `Revision ${it.revision} is active on ${serves} of ${plural(it.nodes.length, "node")}.`}
        {late.length > 0 && ` Not yet: ${late.join(", ")}.`}
      </p>
      {it.warnings.map((warning) => (
        <p key={warning}>‼ {warning}</p>
      ))}
    </div>
  );
}

interface Props {
  label: string;
  title: string;
  command: string;
  method?: "POST" | "PUT" | "DELETE";
  path: string;
  body?: unknown;
  danger?: boolean;
  disabled?: boolean;
  /** What is shown once it is done, where that is no write to the configuration. */
  done?: (answer: any) => ComponentChildren;
  children?: ComponentChildren;
}

/** What is being asked for, as it was at the click: what others write meanwhile changes neither the call nor what is said of it. */
const asked = signal<Props | null>(null);

export function Act(props: Props) {
  return (
    <button type="button" class={props.danger ? "danger" : ""} disabled={props.disabled} onClick={() => (asked.value = props)}>
      {props.label}
    </button>
  );
}

/** The one dialog of the page. */
export function Asked() {
  const props = asked.value;
  return props && <Ask key={props.path} {...props} close={() => (asked.value = null)} />;
}

function Ask(props: Props & { close: () => void }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const [busy, setBusy] = useState(false);
  const [answer, setAnswer] = useState<any>(null);
  const [error, setError] = useState<Refused | null>(null);
  useEffect(() => dialog.current?.showModal(), []);
  const go = async () => {
    setBusy(true);
    setError(null);
    try {
      setAnswer(await call(props.method ?? "POST", props.path, props.body));
    } catch (failed) {
      setError(failed instanceof Refused ? failed : new Refused(0, "", String(failed)));
    }
    setBusy(false);
  };
  return (
    <dialog ref={dialog} onClose={props.close} aria-labelledby="asked">
      <h2 id="asked">{props.title}</h2>
      {props.children}
      <p class="quiet">The same on the command line:</p>
      <Command text={props.command} />
      <Failed error={error} />
      {answer && (props.done ? <div class="done" role="status">{props.done(answer)}</div> : <Written it={answer} />)}
      <p class="buttons">
        {!answer && (
          <button class={props.danger ? "danger" : "main"} disabled={busy} onClick={go}>
            {busy ? "…" : props.label}
          </button>
        )}
        <button onClick={() => dialog.current?.close()}>{answer ? "Close" : "Cancel"}</button>
      </p>
    </dialog>
  );
}
