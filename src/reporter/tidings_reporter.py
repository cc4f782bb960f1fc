"""Tells `tidings run` of every test, beside what pytest prints. Written to a temporary directory by it."""

import json
import os

import pytest

_MAX_TEXT = 2000


def _tail(text):
    return text[-_MAX_TEXT:]


class _Reporter:
    def __init__(self, pipe, config):
        self.pipe = pipe
        self.config = config
        self.durations = {}

    def tell(self, event, **data):
        try:
            os.write(self.pipe, (json.dumps({"event": event, **data}) + "\n").encode())
        except OSError:
            pass

    def pytest_collection_finish(self, session):
        if session.items:
            self.tell("plan", total=len(session.items))

    # Of xdist, where the workers collect.
    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node, ids):
        self.tell("plan", total=len(ids))

    def pytest_collectreport(self, report):
        if report.failed:
            self.ended(report, "failed")

    def pytest_runtest_logstart(self, nodeid, location):
        self.tell("started", name=nodeid)

    def pytest_runtest_logreport(self, report):
        spent = self.durations.get(report.nodeid, 0.0) + report.duration
        self.durations[report.nodeid] = spent
        # As pytest itself counts, with all its plugins.
        status = self.config.hook.pytest_report_teststatus(report=report, config=self.config)
        outcome = {
            "passed": "passed",
            "xpassed": "passed",
            "failed": "failed",
            "error": "failed",
            "skipped": "skipped",
            "xfailed": "skipped",
        }.get(status[0] if status else "")
        if outcome:
            self.ended(report, outcome, durationMs=spent * 1000)
        if report.when == "teardown":
            self.durations.pop(report.nodeid, None)

    def ended(self, report, outcome, **data):
        if outcome == "failed":
            crash = getattr(report.longrepr, "reprcrash", None)
            text = str(report.longrepr or "")
            lines = [line for line in text.splitlines() if line.strip()]
            data["message"] = _tail(crash.message if crash else lines[-1] if lines else "")
            printed = report.capstdout + report.capstderr
            data["output"] = _tail(text + ("\n" + printed if printed else ""))
        self.tell("ended", name=report.nodeid, outcome=outcome, **data)


def pytest_configure(config):
    path = os.environ.get("TIDINGS_EVENTS")
    # Those of xdist report to the process that started them.
    if not path or hasattr(config, "workerinput"):
        return
    try:
        pipe = os.open(path, os.O_WRONLY)
    except OSError:
        return
    os.set_inheritable(pipe, False)
    config.pluginmanager.register(_Reporter(pipe, config), "tidings-reporter")
