"""The results page: one HTML file without scripts, pictures inside, for whoever was not there."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

_TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Search: {{ category }}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; margin: 1rem 0 } td, th { padding: .2rem .7rem; border-bottom: 1px solid #ddd }
td.n { text-align: right; font-variant-numeric: tabular-nums } img { max-width: 100% } code { background: #f4f4f4 }
</style></head><body>
<h1>Search of {{ records }} trials: {{ category }}</h1>
{% for line in split %}<p>{{ line }}</p>{% endfor %}
<h2>Winner</h2><p>{{ winner }}</p><pre>{{ winner_yaml }}</pre>
{% if final %}<h2>Final comparison on the test photos</h2>{{ table(final.head, final.rows) }}
{% for line in final.lines %}<p>{{ line }}</p>{% endfor %}
{% else %}<p>The test photos are still sealed.</p>{% endif %}
<h2>Finalists</h2>{{ table(finalists.head, finalists.rows) }}
<h2>Trials</h2>{{ table(trials.head, trials.rows) }}
{% if failures %}<h3>Failures</h3><ul>{% for reason, count in failures.items() %}<li>{{ count }} x {{ reason }}</li>
{% endfor %}</ul>{% endif %}
<h2>What matters</h2><p>Share of the objective's variance that each dimension explains among the trials that have it
(Optuna, fANOVA).</p>{{ table(importances.head, importances.rows) }}
{% for picture in pictures %}<img alt="{{ picture.name }}" src="data:image/png;base64,{{ picture.data }}">{% endfor %}
<h2>Label-free metrics</h2><p>Rank correlation of each with the AUROC on labelled validation photos, over the
finished trials of this search, with its 95 % bootstrap interval.</p>{{ table(label_free.head, label_free.rows) }}
</body></html>
"""
_TABLE = """<table><tr>{% for cell in head %}<th>{{ cell }}</th>{% endfor %}</tr>
{% for row in rows %}<tr>{% for cell in row %}<td{% if cell is number %} class="n"{% endif %}>{{ show(cell) }}</td>
{% endfor %}</tr>{% endfor %}</table>"""

Table = dict[str, Sequence[Any]]
"""``head``, the names of the columns, and ``rows``."""


def render_page(content: Mapping[str, Any], *, pictures: Mapping[str, bytes]) -> str:
    """Renders the page as HTML; every text is escaped, for names of photos and reasons come from outside.

    Args:
        content: the names that the template asks for.
        pictures: name -> PNG.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    rows = environment.from_string(_TABLE)

    def table(head: Sequence[str], rows_: Sequence[Sequence[object]]) -> Markup:
        return Markup(rows.render(head=head, rows=rows_, show=format_cell))  # noqa: S704  # rendered with escaping

    encoded = [{"name": name, "data": base64.b64encode(png).decode()} for name, png in pictures.items()]
    return environment.from_string(_TEMPLATE).render({**content, "pictures": encoded, "table": table})


def format_cell(cell: object) -> str:
    """Formats a cell for a reader: four digits for a float, ``-`` for None."""
    if cell is None:
        return "-"
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)
