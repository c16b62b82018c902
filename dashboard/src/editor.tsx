// An object's words, and for those who may: a change of them, rehearsed before it is written, on trial if one likes.

import { useState } from "preact/hooks";
import { Command, Failed, Written } from "./act";
import { Refused, call, query } from "./api";
import { Diff } from "./diff";
import { quoted } from "./format";
import { Pending } from "./parts";
import { overview, useLoaded } from "./state";
import type { Words, Write } from "./types";

const TRIAL = "2m";

/** `may`: whoever looks may change it. */
export function Editor({ kind, name, may }: { kind: string; name: string; may: boolean }) {
  const object = useLoaded<Words & { etag: string }>(`${kind}/${encodeURIComponent(name)}?canonical=true`);
  // As they were when somebody began to change them: what others write meanwhile is refused, and not overwritten.
  const [opened, setOpened] = useState<Opened | null>(null);
  if (!object.data && opened?.etag !== "") {
    const isNew = object.error?.status === 404 && may;
    const begin = () => setOpened({ etag: "", text: `${JSON.stringify({ name }, null, 2)}\n`, revision: overview.peek()!.cluster.revision });
    if (isNew) return <p>There is none of this name. <button onClick={begin}>Write it</button></p>;
    return <Pending error={object.error} what="its words" />;
  }
  if (!object.data) return <Form kind={kind} name={name} opened={opened!} close={() => setOpened(null)} />;
  const { etag, ...words } = object.data;
  const text = JSON.stringify(words, null, 2);
  if (!opened || !may) {
    return (
      <>
        <pre tabIndex={0} class="words">
          {text}
        </pre>
        {may && <button onClick={() => setOpened({ etag, text, revision: overview.peek()!.cluster.revision })}>Edit</button>}
      </>
    );
  }
  return <Form kind={kind} name={name} opened={opened} close={() => setOpened(null)} />;
}

interface Opened {
  etag: string;
  text: string;
  revision: number;
}

function Form({ kind, name, opened, close }: { kind: string; name: string; opened: Opened; close: () => void }) {
  const before = opened.text;
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
      const path = `${kind}/${encodeURIComponent(name)}${query({ message, etag: opened.etag, ...words })}`;
      const answer = await call<Write>("PUT", path, object);
      words.dry_run ? setChecked(text) : setWritten(answer);
    } catch (failed) {
      setError(failed instanceof Refused ? failed : new Refused(0, "", String(failed)));
    }
  };
  const note = message && ` -m ${quoted(message)}`;
  return (
    <div class="editor">
      <label for="words">The words of {name}</label>
      <textarea id="words" spellcheck={false} rows={Math.min(30, text.split("\n").length + 1)} value={text} onInput={(event) => setText(event.currentTarget.value)} />
      <label>
        Why <input value={message} placeholder="a message for the history" onInput={(event) => setMessage(event.currentTarget.value)} />
      </label>
      <p class="buttons">
        <button disabled={written !== null} onClick={() => send({ dry_run: true })}>Check</button>
        <button class="main" disabled={written !== null || checked !== text || text === before} onClick={() => send({ try: TRIAL })}>
          Try for two minutes
        </button>
        <button disabled={written !== null || checked !== text || text === before} onClick={() => send({})}>
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
      <Command text={`quorumgate apply -f ${name}.json --try ${TRIAL} --if-revision ${opened.revision}${note}`} />
    </div>
  );
}
