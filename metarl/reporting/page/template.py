"""The page's frame and its looks, in light and in dark; fields in braces are filled in by `report`."""

from __future__ import annotations

TEMPLATE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data: 'self' file:; media-src data: 'self' file:; style-src 'unsafe-inline'">
<link rel="icon" href="data:,">
<title>{title} – metarl report</title>
<style>{style}</style>
</head>
<body>
<header>
<h1>metarl report</h1>
<section class="verdict" aria-label="Verdict">{opening}</section>
{made}
<nav aria-label="Contents"><ul>{contents}</ul></nav>
</header>
<main>
{parts}
</main>
</body>
</html>
"""

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #ffffff; --ink: #1d2127; --soft: #5b6570; --rule: #dfe3e8; --accent: #0b63a5; --shade: #f5f7f9;
  --warn: #fff6e0; --warn-ink: #6b4e00;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14171b; --ink: #e6e8eb; --soft: #a2abb5; --rule: #2f353d; --accent: #6db7f2; --shade: #1b1f25;
    --warn: #33290f; --warn-ink: #f0d58c;
  }
}
* { box-sizing: border-box; }
html { font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
body { margin: 0 auto; padding: 2.5rem clamp(1rem, 4vw, 3rem) 5rem; max-width: 70rem;
  background: var(--paper); color: var(--ink); }
h1 { margin: .1rem 0 0; font-size: clamp(1.7rem, 4vw, 2.3rem); line-height: 1.2; letter-spacing: -.015em; }
h2 { margin: 0 0 1.2rem; font-size: 1.35rem; letter-spacing: -.01em; }
.verdict { margin: 1.1rem 0 1.6rem; padding-left: 1.1rem; border-left: 4px solid var(--accent); }
.lead { max-width: 50rem; margin: 0; font-size: 1.12rem; line-height: 1.5; }
.limits { max-width: 50rem; margin: .4rem 0 0; padding-left: 1.1rem; color: var(--soft); font-size: .89rem; }
.limits + .lead { margin-top: 1.2rem; }
.about { margin: 0 0 .5rem; color: var(--soft); font-size: .89rem; }
header pre { padding: .6rem .9rem; white-space: nowrap; }
nav ul { display: flex; flex-wrap: wrap; gap: .3rem 1.4rem; margin: 0; padding: .8rem 0; list-style: none;
  border-block: 1px solid var(--rule); }
a { color: var(--accent); text-underline-offset: .2em; text-decoration-thickness: 1px; }
a:focus-visible, summary:focus-visible, pre:focus-visible, .scroll:focus-visible { outline: 2px solid var(--accent);
  outline-offset: 3px; border-radius: 2px; }
section { margin-top: 3.2rem; }
figure { margin: 0 0 1.6rem; }
img { display: block; max-width: 100%; height: auto; }
figcaption { margin-top: .4rem; color: var(--soft); font-size: .87rem; }
.scroll { overflow-x: auto; margin: 1.4rem 0 .6rem; }
table { border-collapse: collapse; font-size: .89rem; font-variant-numeric: tabular-nums lining-nums; }
caption { padding-bottom: .5rem; text-align: left; white-space: pre; font-weight: 600; }
th, td { padding: .32rem .75rem .32rem 0; text-align: left; vertical-align: baseline; }
th:last-child, td:last-child { padding-right: 0; }
thead th { border-bottom: 1.5px solid var(--ink); color: var(--soft); font-weight: 500;
  vertical-align: bottom; white-space: normal; }
tbody th { font-weight: 600; }
tbody tr { border-bottom: 1px solid var(--rule); }
tbody tr:has(+ tr.more) { border-bottom-color: transparent; }
.number { text-align: right; white-space: nowrap; }
tbody th { white-space: nowrap; }
.note { max-width: 46rem; margin: .3rem 0; color: var(--soft); font-size: .87rem; }
.warning { margin: 1.6rem 0 0; padding: .7rem 1rem; border-radius: .4rem; background: var(--warn);
  color: var(--warn-ink); }
details { margin: 1.2rem 0; }
summary { cursor: pointer; font-weight: 600; font-size: .95rem; }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(15rem, 1fr)); gap: .9rem 2rem; margin: 1.8rem 0;
  padding: 1rem 1.2rem; border-radius: .5rem; background: var(--shade); font-size: .89rem; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
code, pre { font-family: ui-monospace, "SF Mono", Menlo, Consolas, monospace; font-size: .9em; }
pre { overflow-x: auto; padding: 1rem 1.2rem; border-radius: .5rem; background: var(--shade);
  font-size: .82rem; line-height: 1.5; }
.videos { display: flex; flex-wrap: wrap; gap: 1.5rem; }
.videos figure { flex: 0 1 31rem; }
video, .videos img { width: 100%; border-radius: .4rem; background: #000; }
@media print {
  html { font-size: 11px; }
  body { max-width: none; padding: 0; }
  nav, video { display: none; }
  section { break-before: auto; margin-top: 1.8rem; }
  figure, tr, dl { break-inside: avoid; }
  details::details-content { content-visibility: visible; block-size: auto; }
  pre { white-space: pre-wrap; }
}
"""
