"""As much of W&B's server as a run needs, on loopback, and its failures."""

import json
import socket
import threading
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server(ThreadingHTTPServer):
    """Takes runs and keeps their rows by line number, as W&B does.

    Attributes:
        refusals: HTTP status by the kind of request ("probe", "UpsertBucket", ...) that is to fail with it.
        silent: Once set, requests get no answer any more.
        asked: How often each kind of request came.
        took_rows: Set once it has two rows of a run.
        rows: Rows by run id and line.
        configs: The latest config of each run, by its id.
        alerts: Title and text of each alert.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.refusals, self.asked, self.rows = {}, Counter(), {}
        self.configs, self.alerts = {}, []
        self.silent, self.closing = threading.Event(), threading.Event()
        self.took_rows = threading.Event()

    def close(self):
        """Listen no more; what was connected stays without answer."""
        self.silent.set()
        self.shutdown()
        self.server_close()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):
        """A client that ends leaves connections behind."""

    def stored(self, identity):
        """Rows of a run in the order of their lines."""
        return [row for _, row in sorted(self.rows[identity].items())]

    def answer(self, path, question):
        if path.endswith("/file_stream"):
            self._take(path.split("/")[-2], question.get("files", {}))
            return {"exitcode": None, "limits": {}}
        operation, variables = question.get("operationName"), question.get("variables", {})
        data = {}
        if "viewer" in question.get("query", ""):
            data = {"viewer": {"id": "1", "entity": "me", "username": "me", "flags": "{}", "teams": {"edges": []}}}
        elif operation == "UpsertBucket":
            self.configs[variables["name"]] = json.loads(variables.get("config") or "{}")
            data = {"upsertBucket": {"bucket": _bucket(variables), "inserted": True}}
        elif operation == "NotifyScriptableRunAlert":
            self.alerts.append((variables["title"], variables["text"]))
            data = {"notifyScriptableRunAlert": {"success": True}}
        elif operation == "RunResumeStatus":
            data = {"model": self._state(variables["name"])}
        elif operation == "CreateRunFiles":
            places = [{"name": name, "uploadUrl": f"{self.url}/upload"} for name in variables["files"]]
            data = {"createRunFiles": {"runID": "1", "uploadHeaders": [], "files": places}}
        return {"data": data}

    def _take(self, identity, parts):
        for name, part in parts.items():
            if name == "wandb-history.jsonl":
                lines = enumerate(map(json.loads, part["content"]), part["offset"])
                self.rows.setdefault(identity, {}).update(lines)
                if len(self.rows[identity]) > 1:
                    self.took_rows.set()

    def _state(self, identity):
        if identity not in self.rows:
            return None
        latest = json.dumps(self.stored(identity)[-1])
        known = {"historyLineCount": len(self.rows[identity]), "historyTail": json.dumps([latest])}
        empty = {"logLineCount": 0, "eventsLineCount": 0, "eventsTail": "[]", "config": "{}", "tags": [], "notes": ""}
        bucket = {"id": "1", "name": identity, "displayName": "", "summaryMetrics": latest, "wandbConfig": '{"t": 1}'}
        return {"id": "1", "name": "ncflow", "entity": {"id": "1", "name": "me"}, "bucket": bucket | known | empty}


def _bucket(variables):
    project = {"id": "1", "name": variables["project"] or "ncflow", "entity": {"id": "1", "name": "me"}}
    named = {"name": variables["name"], "displayName": variables["displayName"], "project": project}
    return {"id": "1", "description": "", "config": "{}", "sweepName": None, "historyLineCount": 0, **named}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        """Nothing on the console."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        question = json.loads(body) if body.startswith(b"{") and self.path.startswith(("/graphql", "/files")) else {}
        kind = question.get("operationName") or ("probe" if self.path == "/graphql" else self.path.split("/")[-1])
        self.server.asked[kind] += 1
        if self.server.silent.is_set():
            self.server.closing.wait(120)
            self.close_connection = True
            return
        status = self.server.refusals.get(kind, 200)
        content = json.dumps(self.server.answer(self.path, question) if status == 200 else {}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_PUT = do_POST  # noqa: N815 (so it is called)


@contextmanager
def serving():
    """A server in a thread."""
    with Server() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server
        finally:
            server.closing.set()
            server.shutdown()


@contextmanager
def listening():
    """A port that takes connections and never says anything."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def nowhere():
    """A port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"
