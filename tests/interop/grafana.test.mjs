// The dashboards and alerts by themselves: what Grafana needs to show them, and that each alert has its page.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { describe, test } from 'node:test';
import { promisify } from 'node:util';
import { RULES, RULE_TESTS, SCRAPE_EXAMPLE, alerts, dashboards, read } from './grafana.mjs';

const run = promisify(execFile);
const SOURCE = { type: 'prometheus', uid: '${datasource}' };
const KINDS = ['row', 'timeseries', 'stat', 'heatmap'];
const GRID = 24;

for (const [name, board] of await dashboards()) {
  describe(name, () => {
    const { panels } = board;
    const shown = panels.filter(({ type }) => type !== 'row');

    test('can be imported: it has a name, no number of its own, and a data source that may be chosen', () => {
      assert.equal(`${board.uid}.json`, name);
      assert.ok(!('id' in board), 'an id belongs to one installation');
      assert.ok(board.title && board.description && board.schemaVersion >= 38);
      const variables = board.templating.list;
      assert.deepEqual(variables.map(({ name }) => name), ['datasource', 'job', 'node', 'namespace']);
      assert.equal(variables[0].type, 'datasource');
      for (const { datasource } of variables.slice(1)) assert.deepEqual(datasource, SOURCE);
    });

    test('every panel has a number, a title, a line of help, a unit and thresholds', () => {
      assert.equal(new Set(panels.map(({ id }) => id)).size, panels.length, 'ids are unique');
      for (const panel of panels) assert.ok(KINDS.includes(panel.type) && panel.title, JSON.stringify(panel));
      for (const { title, description, fieldConfig, datasource, targets } of shown) {
        assert.match(description ?? '', /^[A-Z`].{10,}\.$/, `${title}: help`);
        assert.ok(fieldConfig.defaults.unit, `${title}: unit`);
        assert.ok(fieldConfig.defaults.thresholds.steps.length, `${title}: thresholds`);
        assert.deepEqual(datasource, SOURCE, title);
        assert.ok(targets.length, `${title}: targets`);
        assert.equal(new Set(targets.map(({ refId }) => refId)).size, targets.length, title);
        for (const target of targets) assert.deepEqual(target.datasource, SOURCE, title);
        // Several lines without names cannot be told apart.
        if (targets.length > 1) for (const { legendFormat } of targets) assert.ok(legendFormat, title);
      }
      assert.equal(new Set(shown.map(({ title }) => title)).size, shown.length, 'titles are unique');
    });

    test('panels lie within the grid, and none on another', () => {
      const taken = new Map();
      for (const { title, gridPos: { x, y, w, h } } of panels) {
        assert.ok(x >= 0 && w > 0 && x + w <= GRID && h > 0, title);
        for (let row = y; row < y + h; row++) {
          for (let column = x; column < x + w; column++) {
            const cell = `${row}:${column}`;
            assert.ok(!taken.has(cell), `${title} lies on ${taken.get(cell)}`);
            taken.set(cell, title);
          }
        }
      }
    });

    test('every expression looks at the chosen jobs and nodes only, and uses no variable that there is not', () => {
      const known = new Set([...board.templating.list.map(({ name }) => name), '__rate_interval']);
      for (const { title, targets } of shown) {
        for (const { expr } of targets) {
          const selectors = expr.match(/\b(?:tidings|process)_[a-z_]+\{[^}]*\}|\bup\{[^}]*\}/g);
          for (const selector of selectors) assert.match(selector, /job=~"\$job", instance=~"\$node"/, title);
          const bare = expr.replace(/\{[^}]*\}/g, '{').match(/\b(?:tidings|process)_[a-z_]+(?!\{|[a-z_])/g);
          assert.equal(bare, null, `${title}: ${bare} without a selector`);
          for (const [, variable] of expr.matchAll(/\$(\w+)/g)) assert.ok(known.has(variable), `${title}: $${variable}`);
        }
      }
    });

    test('restarts and alerts are marked', () => {
      const marked = board.annotations.list.filter(({ enable, expr }) => enable && expr).map(({ name }) => name);
      assert.deepEqual(marked, ['Restarts', 'Alerts']);
    });
  });
}

describe('alerts', async () => {
  const rules = alerts(await read('grafana/prometheus/tidings.rules.yml'));

  test('the rules and the example of a configuration are sound', async () => {
    await run('promtool', ['check', 'rules', '--lint=all', '--lint-fatal', RULES]);
    await run('promtool', ['check', 'config', '--lint=all', '--lint-fatal', SCRAPE_EXAMPLE]);
  });

  test('each fires when it should, with its words, and is silent when it should be', async () => {
    const tested = await read('grafana/prometheus/tidings.rules.test.yml');
    for (const { name } of rules) {
      assert.ok(tested.includes(`name: '${name} fires'`), `${name} is not seen to fire`);
      assert.ok(tested.includes(`name: '${name} is silent: `), `${name} is not seen to be silent`);
    }
    await run('promtool', ['test', 'rules', RULE_TESTS]);
  });

  test('each has an entry in the runbook, and the runbook has no other', async () => {
    const entries = [...(await read('docs/runbook.md')).matchAll(/^## (Tidings\w+)$/gm)].map(([, name]) => name);
    assert.deepEqual(entries, rules.map(({ name }) => name));
    for (const { name, runbook } of rules) assert.equal(runbook, `docs/runbook.md#${name.toLowerCase()}`);
  });

  test('those for Grafana are the same ones', async () => {
    const theirs = alerts(await read('grafana/provisioning/alerting/tidings.yml'));
    // Grafana calls the value of an expression by its letter.
    const words = (text) => text.replaceAll('$values.A.Value', '$value');
    const plain = theirs.map((rule) => ({ ...rule, summary: words(rule.summary), description: words(rule.description) }));
    assert.deepEqual(plain, rules);
  });
});
