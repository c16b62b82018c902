"""Medians, ratios, what is asked of them, and how `scripts/bench` shows it: lines of text and a chart."""
import statistics

OURS = "quorumgate"
SHOWN = [("requests_per_s", "requests/s", 0), ("p50_ms", "p50 ms", 2), ("p99_ms", "p99 ms", 2), ("mean_ms", "mean ms", 2), ("mib_per_s", "MiB/s", 0),
         ("cpu_s_per_100k", "CPU s/100k", 2), ("cpu_s", "CPU s", 2), ("grown_mib", "grown MiB", 1), ("kib_per_connection", "KiB/conn", 2),
         ("memory_mib", "memory MiB", 1), ("rate", "rate", 0), ("changes", "changes", 0)]
COLOURS = {"quorumgate": "#2563eb", "nginx": "#16a34a", "haproxy": "#d97706", "envoy": "#9333ea"}


def summed_up(row, runs: dict, skipped: dict) -> dict:
    runs = {label: of for label, of in runs.items() if label not in skipped}
    medians = {label: {key: statistics.median(run[key] for run in of) for key in of[0]} for label, of in runs.items() if of}
    ratios = {}
    for label, of in runs.items():
        pairs = [(a[row.figure], b[row.figure]) for a, b in zip(runs.get(OURS, []), of) if row.figure in a and b.get(row.figure)]
        if label != OURS and pairs:
            ratios[label] = statistics.median(a / b for a, b in pairs)
    peers = {label: ratio for label, ratio in ratios.items() if label in COLOURS}
    holds = {}
    for whom, most in row.asked.items():
        ratio = max(peers.values(), default=None) if whom == "best" else ratios.get(whom)
        holds[f"{row.figure} at most {most} of {whom}"] = None if ratio is None else ratio <= most
    for figure, most in row.at_most.items():
        worst = max((run[figure] for run in runs.get(OURS, [])), default=None)
        holds[f"{figure} at most {most}"] = None if worst is None else worst <= most
    return {"title": row.title, "figure": row.figure, "medians": medians, "ratios": ratios, "holds": holds, "skipped": skipped, "runs": runs}


def show(name: str, row: dict) -> None:
    print(f"\n{name}: {row['title']}")
    if "failed" in row:
        return print(f"  FAILED: {row['failed']}", flush=True)
    columns = [it for it in SHOWN if any(it[0] in of for of in row["medians"].values())]
    print(f"  {'':14}" + "".join(f"{title:>12}" for _, title, _ in columns))
    for label, of in row["medians"].items():
        print(f"  {label:14}" + "".join(f"{of[key]:12.{digits}f}" if key in of else f"{'-':>12}" for key, _, digits in columns))
    for label, why in row["skipped"].items():
        print(f"  {label:14}  skipped: {why}")
    if row["ratios"]:
        print(f"  {row['figure']}, {OURS} against: " + ", ".join(f"{label} {ratio:.2f}" for label, ratio in row["ratios"].items()))
    for what, holds in row["holds"].items():
        print(f"  {WORDS[holds]} {what}")
    print(end="", flush=True)


WORDS = {True: "√", False: "×", None: "? not measured:"}


def verdict(results: dict) -> bool:
    """Whether something that was measured does not hold."""
    broken = [f"{name}: {what}" for name, row in results["rows"].items() for what, holds in row.get("holds", {}).items() if holds is False]
    broken += [f"{name}: failed" for name, row in results["rows"].items() if "failed" in row]
    print("\nall that is asked of what was measured holds" if not broken else "\ndoes not hold:\n  " + "\n  ".join(broken))
    return bool(broken)


def chart(results: dict) -> str:
    """Bars of each row's figure, as parts of the longest in it."""
    bars, y = [], 34
    for name, row in results["rows"].items():
        figures = {label: of[row["figure"]] for label, of in row.get("medians", {}).items() if row["figure"] in of}
        longest = max(figures.values(), default=0) or 1
        bars.append(f'<text x="8" y="{y + 12}" font-weight="bold">{name}</text><text x="150" y="{y + 12}" fill="#555">{escaped(row["title"])}: {row.get("figure", "failed")}</text>')
        y += 20
        for label, value in figures.items():
            width = max(1, round(460 * value / longest))
            bars.append(f'<text x="142" y="{y + 11}" text-anchor="end">{label}</text><rect x="150" y="{y}" width="{width}" height="13" '
                        f'fill="{COLOURS.get(label, "#94a3b8")}"/><text x="{156 + width}" y="{y + 11}">{value:.2f}</text>')
            y += 17
        y += 10
    title = f'median of {results["rounds"]} alternating runs of {results["seconds"]:g} s; shorter is better'
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="760" height="{y}" font-family="sans-serif" font-size="12">'
            f'<rect width="100%" height="100%" fill="white"/><text x="8" y="20" fill="#555">{title}</text>{"".join(bars)}</svg>\n')


def escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")
