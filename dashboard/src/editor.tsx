// An object's words, and for those who may: a change of them, rehearsed before it is written, on trial if one likes.

import { useState } from "preact/hooks";
import { Command, Failed, Written } from "./act";
import { Refused, call, query } from "./api";
import { Diff } from "./diff";
import { quoted } from "./format";
import { Pending } from "./parts";
import { acts, useLoaded } from "./state";
import type { Words, Write } from "./types";

const TRIAL = "2m";

export function Editor({ kind, name }: { kind: string; name: string }) {
  const object = useLoaded<Words & { etag: string }>(`${kind}/${encodeURIComponent(name)}?canonical=true&stale=true`);
  const [open, setOpen] = useState(false);
  if (!object.data) return <Pending error={object.error} what="its words" />;
  const { etag, ...words } = object.data;
  const text = JSON.stringify(words, null, 2);
  if (!open || !acts.value) {
    return (
      <>
        <pre tabIndex={0} class="words">
          {text}
        </pre>
        {acts.value && <button onClick={() => setOpen(true)}>Edit</button>}
      </>
    );
  }
  return <Form kind={kind} name={name} etag={etag} before={text} close={() => setOpen(false)} />;
}

function Form({ kind, name, before, close }: { kind: string; name: string; etag: string; before: string; close: () => void }) {
  const [text, setText] = useState(before);
  const [message, setMessage] = useState("");
  const [error, setError] = useState<Refused | null>(null);
  const [written, setWritten] = useState<Write | null>(null);
  const [checked, setChecked] = useState("");
  const send = async (words: Record<string, string | boolean>) => {
    setWritten(null);
    setError(null);
    try {
      const object = JSON.parse(text);
      if (object.name !== name) throw new Refused(0, "", `name: found ${JSON.stringify(object.name)}; allowed: "${name}"`);
      const answer = await call<Write>("POST", `config${query({ message, ...words })}`, { [kind]: [object] });
      words.dry_run ? setChecked(text) : setWritten(answer);
    } catch (failed) {
      setError(failed instanceof Refused ? failed : new Refused(0, "", String(failed)));
    }
  };
  const note = message && ` -m ${quoted(message)}`;
  const one = kind.replace(/s$/, "");
  return (
    <div class="editor">
      <label for="words">The words of {name}</label>
      <textarea id="words" spellcheck={false} rows={Math.min(30, text.split("\n").length + 1)} value={text} onInput={(event) => setText(event.currentTarget.value)} />
      <label>
        Why <input value={message} placeholder="a message for the history" onInput={(event) => setMessage(event.currentTarget.value)} />
      </label>
      <p class="buttons">
        <button onClick={() => send({ dry_run: true })}>Check</button>
        <button class="main" disabled={checked !== text || text === before} onClick={() => send({ try: TRIAL })}>
          Try for two minutes
        </button>
        <button disabled={checked !== text || text === before} onClick={() => send({})}>
          Apply
        </button>
        <button onClick={close}>{written ? "Close" : "Cancel"}</button>
      </p>
      {checked === text && !written && (
        <div role="status" id="checked">
          {text === before ? <p>Nothing differs.</p> : <p>It can be applied. What changes:</p>}
          <Diff before={before} after={text} />
        </div>
      )}
      <Failed error={error} />
      {written && <Written it={written} />}
      <p class="quiet">The same on the command line, with these words in a file under {kind}:</p>
      <Command text={`quorumgate apply -f ${one}.json --try ${TRIAL}${note}`} />
    </div>
  );
}
