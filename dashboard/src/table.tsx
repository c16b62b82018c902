// A table that sorts by its columns and finds words; of many rows it shows the first, so that sorting stays quick.

import type { ComponentChildren } from "preact";
import { useMemo, useState } from "preact/hooks";
import { count } from "./format";
import { place, setWords } from "./state";

const ROWS = 50;

export interface Column<T> {
  title: string;
  /** What is sorted by; null stands last. */
  by?: (row: T) => string | number | null;
  cell: (row: T) => ComponentChildren;
  number?: boolean;
}

interface Props<T> {
  caption: string;
  rows: T[];
  columns: Column<T>[];
  name: (row: T) => string;
  /** Where words are looked for; without it there is no field for them. */
  text?: (row: T) => string;
  empty?: string;
  /** Where a page has several: what the words of this one begin with in the address. */
  id?: string;
}

export function Table<T>({ caption, rows, columns, name, text, empty, id = "" }: Props<T>) {
  const words = place.value.words;
  const [more, setMore] = useState(1);
  const wanted = words.get(`${id}q`) ?? "";
  const sort = words.get(`${id}sort`) ?? "";
  const [title, down] = sort.startsWith("-") ? [sort.slice(1), true] : [sort, false];
  const column = columns.find((it) => it.title === title && it.by);

  const found = useMemo(() => {
    const parts = text ? wanted.toLowerCase().split(/\s+/).filter(Boolean) : [];
    const kept = parts.length ? rows.filter((row) => parts.every((it) => text!(row).toLowerCase().includes(it))) : rows;
    const by = column?.by;
    if (!by) return kept;
    const keyed = kept.map((row) => ({ row, key: by(row) }));
    keyed.sort((a, b) => {
      if (a.key === b.key) return 0;
      if (a.key === null) return 1;
      if (b.key === null) return -1;
      return (a.key < b.key ? -1 : 1) * (down ? -1 : 1);
    });
    return keyed.map((it) => it.row);
  }, [rows, wanted, sort, columns.length]);
  const shown = found.slice(0, more * ROWS);

  // Numbers begin with the largest: that is what one looks for.
  const turn = (it: Column<T>) => {
    const first = it.number ? `-${it.title}` : it.title;
    const second = it.number ? it.title : `-${it.title}`;
    setWords({ [`${id}sort`]: sort === first ? second : first });
  };

  return (
    <div>
      {text && (
        <p class="filter">
          <label>
            Find <input type="search" value={wanted} onInput={(event) => setWords({ [`${id}q`]: event.currentTarget.value })} />
          </label>
          <span class="quiet" role="status">
            {count(found.length)} of {count(rows.length)}
          </span>
        </p>
      )}
      <div class="scroll" tabIndex={0} role="region" aria-label={caption}>
        <table>
          <caption class="unseen">{caption}</caption>
          <thead>
            <tr>
              {columns.map((it) => (
                <th
                  key={it.title}
                  scope="col"
                  class={it.number ? "number" : ""}
                  aria-sort={column === it ? (down ? "descending" : "ascending") : undefined}
                >
                  {it.by ? (
                    <button class="sort" onClick={() => turn(it)}>
                      {it.title}
                      <span aria-hidden="true">{column === it ? (down ? " ↓" : " ↑") : ""}</span>
                    </button>
                  ) : (
                    it.title
                  )}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {shown.map((row) => (
              <tr key={name(row)}>
                {columns.map((it) => (
                  <td key={it.title} class={it.number ? "number" : ""}>
                    {it.cell(row)}
                  </td>
                ))}
              </tr>
            ))}
            {shown.length === 0 && (
              <tr>
                <td colSpan={columns.length} class="quiet">
                  {rows.length ? "nothing has these words" : (empty ?? "there is none")}
                </td>
              </tr>
            )}
          </tbody>
        </table>
      </div>
      {shown.length < found.length && (
        <button onClick={() => setMore(more + 2)}>Show more ({count(found.length - shown.length)} are left)</button>
      )}
    </div>
  );
}
