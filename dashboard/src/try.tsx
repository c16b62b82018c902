// "What would happen to this request": nothing is sent, the node that is asked says what it would do.

import { useState } from "preact/hooks";
import { Command, Failed } from "./act";
import { Refused, get, query } from "./api";
import { quoted } from "./format";
import { link, place, setWords } from "./state";
import type { Match, Words } from "./types";

const METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"];

function example(route: Words | null): string {
  const match = (route?.match ?? {}) as Record<string, any>;
  const host = (Array.isArray(match.hosts) ? match.hosts[0] : undefined) ?? "example.test";
  const path = match.path_prefix ?? match.path ?? match.path_exact ?? "/";
  return `http://${String(host).replace("*", "any")}${path}`;
}

export function Try({ route }: { route?: Words | null }) {
  const words = place.value.words;
  const url = words.get("url") ?? example(route ?? null);
  const method = words.get("method") ?? "GET";
  const consumer = words.get("consumer") ?? "";
  const [answer, setAnswer] = useState<Match | null>(null);
  const [error, setError] = useState<Refused | null>(null);
  const ask = async (event: Event) => {
    event.preventDefault();
    try {
      setAnswer(await get<Match>(`match${query({ method, url, consumer })}`));
      setError(null);
    } catch (failed) {
      setAnswer(null);
      if (failed instanceof Refused) setError(failed);
    }
  };
  return (
    <div>
      <form class="row" onSubmit={ask}>
        <label>
          Method
          <select value={method} onChange={(event) => setWords({ method: event.currentTarget.value })}>
            {METHODS.map((it) => (
              <option key={it}>{it}</option>
            ))}
          </select>
        </label>
        <label class="wide">
          URL
          <input value={url} onInput={(event) => setWords({ url: event.currentTarget.value })} />
        </label>
        <label>
          Consumer
          <input value={consumer} placeholder="nobody" onInput={(event) => setWords({ consumer: event.currentTarget.value })} />
        </label>
        <button class="main">Try</button>
      </form>
      <Command text={`quorumgate route match ${method} ${quoted(url)}${consumer && ` --consumer ${quoted(consumer)}`}`} />
      <Failed error={error} />
      {answer && (
        <div role="status" class="answer" id="match">
          <p>
            {answer.route ? (
              <>
                The route <a href={link("routes", answer.route)}>{answer.route}</a> takes it
                {answer.upstream && ` and passes it to ${answer.upstream}`}
              </>
            ) : (
              "No route takes it"
            )}
            {answer.status !== null && `; the answer is ${answer.status}`}
            {answer.code && ` ${answer.code}`}.
          </p>
          <ol>
            {answer.phases.map((it) => (
              <li key={it.phase + it.decision}>
                <strong>{it.phase}</strong>: {it.decision}
                {it.rule && ` (${it.rule})`}
              </li>
            ))}
          </ol>
          {answer.beaten.length > 0 && <Others title="It comes before" all={answer.beaten} />}
          {answer.near_misses.length > 0 && <Others title="These nearly take it" all={answer.near_misses} />}
        </div>
      )}
    </div>
  );
}

function Others({ title, all }: { title: string; all: { route: string; why: string }[] }) {
  return (
    <>
      <p>{title}:</p>
      <ul>
        {all.map((it) => (
          <li key={it.route}>
            <a href={link("routes", it.route)}>{it.route}</a>: {it.why}
          </li>
        ))}
      </ul>
    </>
  );
}
