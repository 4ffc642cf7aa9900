"""The page of the report, a Jinja template; every value is escaped unless marked safe."""

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
  :root { color-scheme: light; }
  body { font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff;
         max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
  h1 { font-size: 1.5rem; margin-bottom: 0; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
  .result { font-size: 2.4rem; font-weight: 600; margin: .3rem 0; }
  .note { color: #666; }
  .verdict { display: inline-block; margin: 0; padding: .2rem .8rem; font-weight: 600; }
  .pass { background: #dff0e0; } .fail { background: #f8dcd6; }
  .variant { background: #fff3d6; border: 1px solid #e4c878; padding: .3rem .7rem; }
  table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
  th, td { text-align: right; padding: .15rem .9rem .15rem 0; }
  th { font-weight: 600; border-bottom: 1px solid #bbb; }
  td.text, th.text { text-align: left; }
  td.hash { font-family: monospace; font-size: .8rem; overflow-wrap: anywhere; }
  tfoot td { border-top: 1px solid #bbb; font-weight: 600; }
  .columns { display: flex; flex-wrap: wrap; gap: 1.5rem 3rem; align-items: flex-start; }
  .columns > div { min-width: 0; }
  .plots { gap: 1.5rem; } .plots > div { flex: 1 1 24rem; max-width: 30rem; }
  .plots svg { width: 100%; height: auto; }
  .cards { display: flex; flex-wrap: wrap; gap: 1rem; }
  figure { margin: 0; width: 14rem; font-size: .8rem; }
  figure div { display: flex; gap: .3rem; } figure img { width: 6.8rem; display: block; }
  figcaption { overflow-wrap: anywhere; color: #444; }
</style>
</head>
<body>
<h1>{{ title }}</h1>
<p class="result">{{ "%.2f"|format(100 * data.accuracy.mean) }}%
  &plusmn; {{ "%.2f"|format(100 * data.accuracy.std) }}</p>
<p class="note">Mean accuracy over {{ data.folds|length }} folds and its standard deviation;
  {{ data.pairs.same }} same and {{ data.pairs.different }} different pairs.
{% if data.undefined_scores %}
  {{ data.undefined_scores }} scores are undefined and count as wrong.
{% endif %}
</p>
{% if data.expected %}
<p class="verdict {{ "pass" if data.expected.passed else "fail" }}">
  {{ "PASS" if data.expected.passed else "FAIL" }}: expected
  {{ "%.2f"|format(data.expected.accuracy) }}% &plusmn;
  {{ "%.2f"|format(data.expected.tolerance) }}</p>
{% endif %}
{% for variant in data.variants %}
<p class="variant">Departs from the original protocol: {{ variant }}.</p>
{% endfor %}

<div class="columns">
<div>
<h2>Folds</h2>
<table id="folds">
<thead><tr><th>fold</th><th>accuracy</th><th>threshold</th></tr></thead>
<tbody>
{% for row in data.folds %}
<tr><td>{{ row.fold }}</td><td>{{ "%.2f"|format(100 * row.accuracy) }}%</td>
  <td>{{ "%.4f"|format(row.threshold) }}</td></tr>
{% endfor %}
</tbody>
<tfoot><tr><td>mean</td><td>{{ "%.2f"|format(100 * data.accuracy.mean) }}%</td>
  <td>{{ "%.4f"|format(data.accuracy.threshold) }}</td></tr></tfoot>
</table>
</div>
<div>
<h2>All pairs</h2>
<table id="rates">
<thead><tr><th class="text">measure</th><th>value</th><th>threshold</th></tr></thead>
<tbody>
{% for point in data.tar_at_far %}
<tr><td class="text">TAR at FAR {{ "%g"|format(point.far) }}
  {%- if not point.resolved %} (too few different pairs: no false accept){% endif %}</td>
  <td>{{ "%.2f"|format(100 * point.tar) }}%</td>
  <td>{{ "%.4f"|format(point.threshold) }}</td></tr>
{% endfor %}
<tr><td class="text">equal error rate</td>
  <td>{{ "%.2f"|format(100 * data.equal_error_rate) }}%</td><td></td></tr>
<tr><td class="text">area under the ROC</td>
  <td>{{ "%.5f"|format(data.area_under_curve) }}</td><td></td></tr>
</tbody>
</table>
</div>
</div>

<div class="columns plots">
<div><h2>ROC</h2>{{ roc|safe }}</div>
<div><h2>Scores</h2>{{ histogram|safe }}</div>
</div>

<h2>Most confident mistakes</h2>
{% for heading, cards in mistakes %}
<h3>{{ heading }}</h3>
<div class="cards">
{% for card in cards %}
<figure>
<div>{% for face in card.faces if face.source %}
<img src="{{ face.source }}" alt="{{ face.name }}">{% endfor %}</div>
<figcaption>{{ card.faces[0].name }}, {{ card.faces[1].name }}<br>
score {{ "%.4f"|format(card.score) }}, threshold {{ "%.4f"|format(card.threshold) }},
line {{ card.line }}</figcaption>
</figure>
{% else %}
<p class="note">None.</p>
{% endfor %}
</div>
{% endfor %}

<h2>Environment</h2>
<table id="environment">
{% for name, value in data.environment.items() %}
<tr><td class="text">{{ name }}</td><td class="text">{{ value }}</td></tr>
{% endfor %}
</table>
{% if data.files %}
<h2>Files (SHA-256)</h2>
<table id="files">
{% for name, hash in data.files.items() %}
<tr><td class="text">{{ name }}</td><td class="text hash">{{ hash }}</td></tr>
{% endfor %}
</table>
{% endif %}
</body>
</html>
"""
