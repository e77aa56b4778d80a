"""How report and index look: dark, as the console, because the colours of objects are chosen against dark tissue."""

from __future__ import annotations

BASE = """
:root {
  color-scheme: dark; --ground: #0d1115; --surface: #151b21; --raised: #1d252d; --line: #33404c;
  --text: #eef3f7; --quiet: #b3c0cc; --link: #8fd0ff; --good: #57d08f; --warn: #ffc247; --bad: #ff8a82;
  font: 16px/1.5 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; font-variant-numeric: tabular-nums;
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--text); overflow-wrap: anywhere; }
h1, h2, h3, p, ul, ol, dl, dd, figure { margin: 0; padding: 0; }
h1 { font-size: 1.6rem; line-height: 1.25; } h2 { font-size: 1.25rem; } h3 { font-size: 1rem; }
ul, ol { list-style: none; }
a { color: var(--link); } a:hover { text-decoration-thickness: 2px; }
:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; border-radius: 2px; }
code { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: .9em; background: var(--raised);
  padding: .1em .35em; border-radius: .25rem; }
header, main, footer { max-width: 76rem; margin: 0 auto; padding: 1rem 1.25rem; }
header { display: grid; gap: .75rem; padding-top: 1.75rem; }
main { display: grid; gap: 2.25rem; grid-template-columns: minmax(0, 1fr); }
section { display: grid; gap: .75rem; grid-template-columns: minmax(0, 1fr); }
footer { color: var(--quiet); font-size: .875rem; border-top: 1px solid var(--line); margin-top: 1.5rem; }
.quiet { color: var(--quiet); font-weight: 400; }
.state { display: inline-block; font-weight: 650; padding: .1rem .6rem; border-radius: 1rem;
  border: 1px solid currentColor; }
.state.good { color: var(--good); } .state.bad { color: var(--bad); } .state.warn { color: var(--warn); }
.facts { display: flex; flex-wrap: wrap; gap: .5rem 2rem; }
.facts dt { color: var(--quiet); font-size: .875rem; } .facts dd { font-weight: 600; }
.wide { overflow-x: auto; border: 1px solid var(--line); border-radius: .5rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .4rem .75rem; border-top: 1px solid var(--line); vertical-align: top;
  overflow-wrap: normal; }
tbody th { min-width: 9rem; }
thead th { border-top: 0; background: var(--surface); font-weight: 600; white-space: nowrap; }
th.number, td.number { text-align: right; white-space: nowrap; }
.swatch { display: inline-block; width: .85em; height: .85em; border-radius: .2em; margin-right: .4em;
  vertical-align: -.05em; border: 1px solid #ffffff66; }
"""

REPORT = (
    BASE
    + """
.moments { display: grid; gap: .75rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 22rem), 1fr)); }
.moments > li { display: flex; gap: .75rem; background: var(--surface); border: 1px solid var(--line);
  border-left: 4px solid var(--warn); border-radius: .5rem; padding: .6rem; }
.moments > li[data-kind="end"], .moments > li[data-kind="damage"] { border-left-color: var(--bad); }
.moments > li[data-kind="cut"] { border-left-color: var(--quiet); }
.moments img, .turns img { width: 100%; height: auto; border-radius: .25rem; background: #000; display: block; }
.moments .picture { flex: 0 0 45%; } .moments .words { flex: 1; min-width: 0; }
.when a { display: inline-block; min-height: 1.5rem; font-weight: 650; }
.turns { display: grid; gap: .75rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 9.5rem), 1fr)); }
.turns li { background: var(--surface); border-radius: .5rem; padding: .5rem; font-size: .9rem; }
.rows { display: grid; gap: .6rem; background: var(--surface); border: 1px solid var(--line); border-radius: .5rem;
  padding: .75rem; }
.row h3 { display: flex; flex-wrap: wrap; align-items: baseline; gap: 0 1rem; font-weight: 600; }
.row h3 small { font-weight: 400; color: var(--quiet); font-size: .875rem; }
.row svg { display: block; width: 100%; background: #07090b; border-radius: .25rem; }
.row svg * { vector-effect: non-scaling-stroke; }
.line { stroke: #5c6b78; stroke-dasharray: 2 4; } .cut { stroke: #dfe8ef; stroke-width: 1.5; stroke-dasharray: 5 3; }
.gap { fill: #ff6b62; } .mark { stroke: #fff; stroke-width: 3; } .end { stroke: #ff6b62; stroke-width: 4; }
.axis { position: relative; height: 1.5rem; font-size: .8rem; color: var(--quiet); }
.axis span { position: absolute; transform: translateX(-50%); white-space: nowrap; }
.axis span:first-child { transform: none; } .axis span:last-child { transform: translateX(-100%); }
.legend { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; font-size: .875rem; color: var(--quiet); }
.legend svg { width: 1.75rem; height: .9rem; vertical-align: -.1rem; margin-right: .35rem; background: #07090b; }
details summary { cursor: pointer; padding: .15rem 0; color: var(--link); }
.notes li { padding: .3rem 0; border-top: 1px solid var(--line); } .notes li:first-child { border-top: 0; }
@media (max-width: 30rem) {
  header, main, footer { padding-left: .75rem; padding-right: .75rem; }
  .moments > li { flex-direction: column; } .moments .picture { flex: none; }
}
@media print { .moments > li, .row { break-inside: avoid; } }
"""
)

INDEX = (
    BASE
    + """
header, main, footer { max-width: 90rem; }
th button { font: inherit; color: inherit; background: none; border: 0; padding: .25rem 0; min-height: 1.75rem;
  cursor: pointer; white-space: nowrap; }
th button::after { content: "\\2195"; display: inline-block; width: 1.2em; text-align: center; color: var(--quiet); }
th[aria-sort="ascending"] button::after { content: "\\2191"; color: var(--text); }
th[aria-sort="descending"] button::after { content: "\\2193"; color: var(--text); }
tbody th { min-width: 13rem; }
tbody tr:hover { background: var(--surface); } tr.failed { background: #2a1618; }
.why { display: block; color: var(--bad); max-width: 60ch; }
@media (max-width: 30rem) { header, main, footer { padding-left: .75rem; padding-right: .75rem; }
.why { min-width: 14rem; } }
"""
)
