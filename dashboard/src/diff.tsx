// Two texts side by side, their lines along the longest that they have in common.

/** Longer ones are shown whole, without being compared. */
const LINES_MAX = 1_500;

type Row = { before: string | null; after: string | null; same: boolean };

export function compare(before: string[], after: string[]): Row[] {
  const rows: Row[] = [];
  const pairs = before.length > LINES_MAX || after.length > LINES_MAX ? [] : common(before, after);
  let [i, j] = [0, 0];
  for (const [nextI, nextJ] of [...pairs, [before.length, after.length] as const]) {
    while (i < nextI || j < nextJ) {
      rows.push({ before: i < nextI ? before[i++]! : null, after: j < nextJ ? after[j++]! : null, same: false });
    }
    if (nextI < before.length && nextJ < after.length) rows.push({ before: before[i++]!, after: after[j++]!, same: true });
  }
  return rows;
}

function common(before: string[], after: string[]): (readonly [number, number])[] {
  const width = after.length + 1;
  const longest = new Uint16Array((before.length + 1) * width);
  for (let i = before.length - 1; i >= 0; i--) {
    for (let j = after.length - 1; j >= 0; j--) {
      longest[i * width + j] =
        before[i] === after[j]
          ? longest[(i + 1) * width + j + 1]! + 1
          : Math.max(longest[(i + 1) * width + j]!, longest[i * width + j + 1]!);
    }
  }
  const pairs: (readonly [number, number])[] = [];
  for (let i = 0, j = 0; i < before.length && j < after.length; ) {
    if (before[i] === after[j]) pairs.push([i++, j++]);
    else if (longest[(i + 1) * width + j]! >= longest[i * width + j + 1]!) i++;
    else j++;
  }
  return pairs;
}

const lines = (text: string) => (text ? text.split("\n") : []);

export function Diff({ before, after }: { before: string; after: string }) {
  const rows = compare(lines(before), lines(after));
  return (
    <div class="scroll" tabIndex={0} role="region" aria-label="Before and after">
      <table class="diff">
        <thead>
          <tr>
            <th scope="col">before</th>
            <th scope="col">after</th>
          </tr>
        </thead>
        <tbody>
          {rows.map((row, at) => (
            <tr key={at} class={row.same ? "" : "differs"}>
              <td class={row.same || row.before === null ? "" : "gone"}>
                <Side sign="-" text={row.before} same={row.same} />
              </td>
              <td class={row.same || row.after === null ? "" : "new"}>
                <Side sign="+" text={row.after} same={row.same} />
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function Side({ sign, text, same }: { sign: string; text: string | null; same: boolean }) {
  return text === null ? null : (
    <code>
      {same ? "  " : `${sign} `}
      {text}
    </code>
  );
}
