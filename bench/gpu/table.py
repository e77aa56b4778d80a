"""The results for people: whether it is right, then times, then peers, then what limits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

WIDTH = 26


def table(document: dict[str, Any]) -> str:
    """All of a document's parts."""
    key = document["key"]
    gpu = key["machine"].get("gpu") or {}
    device = gpu.get("name") or key["machine"].get("cpu", "")
    torch_version = key["versions"].get("torch", "")
    lines = [f"\n{device}, torch {torch_version}, commit {key['commit']}, seed {document['seed']}"]
    lines += ["", "CORRECT?"]
    parts = document["parts"]
    for name, part in parts.items():
        if name.split()[0] in ("verbs", "parity", "fuzz", "sanitizer"):
            lines += _correct(name, part)
    warning = f"  (of an engine that is NOT RIGHT: {', '.join(document['incorrect'])})" if document["incorrect"] else ""
    for name, part in parts.items():
        shown = SHOWN.get(name.split()[0])
        if shown and part["result"] and part["status"] != "absent":
            lines += ["", f"{name}{warning}{_ending(part)}", *shown(part["result"])]
        elif name.split()[0] not in ("machine", "verbs", "parity", "fuzz", "sanitizer"):
            lines += ["", f"{name}: {_why(part)}"]
    if document["left"]:
        lines += ["", f"left for the next run: {', '.join(document['left'])}"]
    return "\n".join(lines)


def _correct(name: str, part: dict[str, Any]) -> list[str]:
    found = part["result"]
    if not found or "ok" not in found:
        return [f"  ?     {name}: {_why(part)}"]
    mark = "ok   " if found["ok"] and part["status"] == "done" else "?    " if found["ok"] else "WRONG"
    lines = [f"  {mark} {name}: {_said(found)}{_ending(part)}"]
    for check in found.get("checks", ()):
        for verb, v in check["verbs"].items():
            if not v["ok"]:
                typical = "no number" if v["typical"] is None else f"off by {v['typical']:.2g}"
                who = f"{check['precision']}, {check['objects']} objects"
                lines.append(f"{'':10}{who}: {verb} is {typical}; limit {v['limit']:.2g}")
    lines += [
        f"          script {f['script']}, {f['policy']}, {f['size']}: {f['failures'][0]}"
        for f in found.get("failed", ())[:3]
    ]
    return lines


def _said(found: dict[str, Any]) -> str:
    if "checks" in found:
        worst: dict[str, float | None] = {}
        for check in found["checks"]:
            seen = [v["typical"] for q, v in check["verbs"].items() if q != "prepare"]
            top = None if None in seen else max(seen)
            before = worst.get(check["precision"], 0.0)
            worst[check["precision"]] = None if top is None or before is None else max(before, top)
        return "; ".join(f"{p}: {'no number' if e is None else f'{e:.2g} at most'}" for p, e in worst.items())
    if "scripts" in found:
        return f"{found['scripts']} scripts, least IoU {found.get('least', 1):.3f}"
    if "errors" in found or "exit" in found:
        return f"{found.get('errors', '?')} errors, exit {found.get('exit')}"
    text = f"{found['frames']} frames, least IoU {found['least']:.4f}, mean {found['mean']:.4f}"
    return text if found["ok"] else f"{text}: {found.get('why', '')}"


def _speed(found: dict[str, Any]) -> list[str]:
    lines = [
        _row(
            "",
            "p50 ms",
            "p90",
            "p99",
            "p99/p50",
            "host ms",
            "device ms",
            "waits",
            "kernels",
            "MiB",
            "planned",
            "ready s",
        )
    ]
    for name, r in found["rows"].items():
        ms, seen = r["ms"], r.get("profile", {})
        tail = f"{ms['p99'] / ms['p50']:.2f}"
        memory = r["memory_mb"].get("device")
        numbers = [f"{ms[p]:.3f}" for p in ("p50", "p90", "p99")] + [tail, f"{r['host_ms']:.3f}"]
        numbers += [
            _or(seen.get("device_ms")),
            _or(seen.get("waits")),
            _or(seen.get("kernels")),
            _or(memory),
            str(r["planned_mb"]["engine"]),
            _or(r["ready_s"]),
        ]
        lines.append(_row(name, *numbers))
    lines += [f"left: {', '.join(found['left'])}"] if found["left"] else []
    return lines + _goals(found)


def _peers(found: dict[str, Any]) -> list[str]:
    lines = [_row("", "p50 ms", "p90", "p99", "x eager", "x compiled", "IoU mean", "min")]
    for name, r in found["rows"].items():
        ratios = [
            r["faster_than"].get(other, {}).get("median") for other in ("transformers bf16", "transformers compiled")
        ]
        iou = r["iou"] or {}
        shown = [f"{r['ms'][p]:.3f}" for p in ("p50", "p90", "p99")]
        lines.append(_row(name, *shown, *(_or(x) for x in ratios), _or(iou.get("mean")), _or(iou.get("min"))))
    lines += [f"{name}: not run: {why}" for name, why in found["not_run"].items()]
    return lines + _goals(found)


def _limits(found: dict[str, Any]) -> list[str]:
    c = found["ceilings"]
    lines = [f"ceilings measured: {c['gbps']:.0f} GB/s, {c['tflops']:.1f} TFLOP/s in bf16"]
    lines.append(_row("", "ms", "floor", "x floor", "GFLOP", "least MB", "kernels", "limit"))
    for verb, v in found["verbs"].items():
        numbers = (
            f"{v['ms']:.3f}",
            f"{v['floor_ms']:.4f}",
            f"{v['over_floor']:.1f}",
            f"{v['gflop']}",
            f"{v['least_mb']}",
        )
        lines.append(_row(verb, *numbers, str(v["kernels"]), v["limit"]))
    lines += [f"attention: {', '.join(found['attention'])}"] if found["attention"] else []
    return lines


def _other(found: dict[str, Any]) -> list[str]:
    return ["; ".join(f"{k}: {v}" for k, v in found.items())]


SHOWN = {
    "speed": _speed,
    "variants": _speed,
    "peers": _peers,
    "compiled": _peers,
    "limits": _limits,
    "EdgeTAM": _peers,
    "TensorRT": _peers,
    "frame": _other,
}


def _goals(found: dict[str, Any]) -> list[str]:
    return [f"{'reached' if ok else 'MISSED '} {goal}" for goal, ok in found.get("goals", {}).items()]


def _ending(part: dict[str, Any]) -> str:
    return "" if part["status"] == "done" else f" [{_why(part)}]"


def _why(part: dict[str, Any]) -> str:
    """Why a part has no whole result."""
    status = part["status"]
    if status == "absent":
        return f"not there: {part['result']['absent']}"
    if status == "left":
        return "no time was left"
    if status == "partial" or "unfinished" in (part["result"] or {}):
        return str(part["last"][0])
    how = part.get("signal") or (f"exit {part['exit']}" if "exit" in part else f"killed after {part['seconds']:.0f} s")
    # Of a Python error the last line says what it was, of a crash the one before the stack.
    output = [line for line in part.get("last", ()) if line.strip()]
    fatal = next((i for i, line in enumerate(output) if line.startswith("Fatal Python error")), len(output))
    last = output[max(0, fatal - 1)].strip() if output else ""
    return f"{status} ({how}){': ' + last if last else ''}"


def _or(value: Any) -> str:
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _row(name: str, *cells: str) -> str:
    return f"{name:{WIDTH}}" + "".join(f"{c:>11}" for c in cells)


__all__: Sequence[str] = ["table"]
