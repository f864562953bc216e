"""A small Hub over loopback that speaks the real protocol to the unmodified huggingface_hub client, faults included.

Datasets only: repositories, preupload, git-LFS and (accepted unread) Xet uploads, commits, branches, tags, trees,
downloads. `hub.faults` decides which call goes wrong and how; `hub.calls` remembers every call that was answered.
"""

import base64
import hashlib
import json
import re
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

from tests.hub_cards import card_errors
from tests.hub_repos import Entry, Repo, StandInHub, pointer_oid

TOKEN = "hf_" + "StandInSecretToken0123456789"
ATTRIBUTES = b"*.parquet filter=lfs diff=lfs merge=lfs -text\n"
LFS_ENDINGS = (".parquet", ".tar", ".zip", ".bin")


@contextmanager
def serving(hub):
    """Serve `hub` on a free loopback port while the block runs."""
    handler = type("Bound", (Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class Answer(Exception):
    """Ends a call with a status, headers and a body."""

    def __init__(self, status, body=b"", **headers):
        super().__init__(status)
        self.status = status
        self.body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}
        self.headers.setdefault("Content-Type", "application/json" if not isinstance(body, bytes) else "text/plain")


class Handler(BaseHTTPRequestHandler):
    """Reads a call, lets the faults have their say, finds its route, answers."""

    protocol_version = "HTTP/1.1"
    hub: StandInHub

    def log_message(self, *args):
        pass

    def do_GET(self):
        self.serve()

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    def serve(self):
        path = unquote(urlsplit(self.path).path)
        self.query = parse_qs(urlsplit(self.path).query)
        with self.hub.lock:
            struck = [fault.kind for fault in self.hub.faults if fault.strikes(self.command, path)]
        kind = struck[0] if struck else None
        body = b"" if kind == "drop" else self.read_body()
        if kind == "drop" or body is None:
            self.close_connection = True
            return
        if callable(kind):
            kind = kind()
        if kind == "slow":
            time.sleep(0.3)
        if kind == "corrupt":
            body = body[:-1] + bytes([body[-1] ^ 1])
        if isinstance(kind, int):
            answer = Answer(kind, b"try later", RateLimit='"api";r=0;t=1') if kind == 429 else Answer(kind, b"oops")
        else:
            try:
                self.route(path, body)
                answer = Answer(404, {"error": f"no route {path}"})
            except Answer as found:
                answer = found
            if kind == "lost 504":
                answer = Answer(504, b"gateway timeout")
        with self.hub.lock:
            self.hub.calls.append((self.command, path, answer.status if kind != "lost" else 0))
        if kind == "lost":
            self.close_connection = True
            return
        self.send(answer)

    def read_body(self):
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            data = bytearray()
            while size := int(self.rfile.readline().split(b";")[0], 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return bytes(data)
        size = int(self.headers.get("Content-Length") or 0)
        data = self.rfile.read(size)
        return data if len(data) == size else None  # the caller is gone

    def send(self, answer):
        try:
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            if "Content-Length" not in answer.headers:
                self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.body)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def route(self, path, body):
        for method, pattern, action in ROUTES:
            match = re.fullmatch(pattern, path)
            if match and self.command in method:
                with self.hub.lock:
                    action(self, body, **match.groupdict())
                return

    def signed_in(self):
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            raise Answer(
                401, {"error": "Invalid username or password."}, X_Error_Message="Invalid username or password."
            )

    def repo(self, id):
        repo = self.hub.repos.get(id)
        if repo is None:
            raise Answer(404, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
        if repo.private:
            self.signed_in()
        return repo

    def at(self, id, revision):
        commit = self.repo(id).find(revision)
        if commit is None:
            raise Answer(404, {"error": "Invalid rev id"}, X_Error_Code="RevisionNotFound")
        return commit

    # The routes, in the order of a publication.

    def create(self, body):
        self.signed_in()
        asked = json.loads(body)
        assert asked["type"] == "dataset"
        id = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else f"me/{asked['name']}"
        url = f"{self.hub.url}/datasets/{id}"
        if id in self.hub.repos:
            raise Answer(409, {"error": "You already created this dataset repo", "url": url})
        self.hub.repos[id] = repo = Repo(asked.get("visibility") == "private")
        self.hub.commit(repo, "main", "initial commit", {".gitattributes": self.hub.add_regular(ATTRIBUTES)})
        raise Answer(200, {"url": url, "name": id, "id": id})

    def validate_yaml(self, body):
        errors = card_errors(json.loads(body)["content"])
        raise Answer(400 if errors else 200, {"errors": [{"message": e} for e in errors], "warnings": []})

    def preupload(self, body, id, revision):
        self.signed_in()
        tree = self.at(id, revision).tree
        files = []
        for file in json.loads(body)["files"]:
            there = tree.get(file["path"])
            lfs = file["path"].endswith(LFS_ENDINGS) or file["size"] > 10_000_000
            oid = (there.sha256 or there.oid) if there else None
            mode = "lfs" if lfs else "regular"
            files.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        raise Answer(200, {"files": files})

    def lfs_batch(self, body, id):
        self.signed_in()
        self.repo(id)
        objects = []
        for wanted in json.loads(body)["objects"]:
            found = {"oid": wanted["oid"], "size": wanted["size"]}
            if not self.hub.blob(wanted["oid"]).exists():
                href = f"{self.hub.url}/lfs/{wanted['oid']}"
                upload = {"href": f"{href}?X-Amz-Credential=AKIASECRETKEY&X-Amz-Signature=signedsecret"}
                found["actions"] = {"upload": upload, "verify": {"href": f"{href}/verify"}}
            objects.append(found)
        raise Answer(200, {"transfer": "basic", "objects": objects})

    def lfs_put(self, body, oid):
        assert self.query["X-Amz-Signature"]
        self.hub.bytes_put += len(body)
        if hashlib.sha256(body).hexdigest() != oid:
            raise Answer(400, b"BadDigest")
        self.hub.put(oid, body)
        raise Answer(200, b"", ETag=f'"{oid}"')

    def lfs_verify(self, body, oid):
        asked = json.loads(body)
        blob = self.hub.blob(oid)
        whole = blob.exists() and blob.stat().st_size == asked["size"]
        raise Answer(200 if whole else 422, {"message": "ok" if whole else "not there"})

    def commit(self, body, id, revision):
        self.signed_in()
        repo = self.repo(id)
        head = self.at(id, revision)
        changes, deleted, header = {}, [], {}
        for line in body.splitlines():
            kind, value = json.loads(line).values()
            if kind == "header":
                header = value
            elif kind == "file":
                changes[value["path"]] = self.hub.add_regular(base64.b64decode(value["content"]))
            elif kind == "lfsFile":
                oid, size = value["oid"], value["size"]
                if not self.hub.blob(oid).exists() and not self.hub.has_xet(oid):
                    raise Answer(400, {"error": f"LFS object {oid} is missing"})
                changes[value["path"]] = Entry(pointer_oid(oid, size), size, oid)
            elif kind in ("deletedFile", "deletedFolder"):
                deleted.append(value["path"])
        if header.get("parentCommit") not in (None, head.oid):
            raise Answer(412, {"error": "A commit has happened since. Please refresh and try again."})
        oid = self.hub.commit(repo, revision, header["summary"], changes, deleted)
        raise Answer(
            200, {"commitOid": oid, "commitUrl": f"{self.hub.url}/datasets/{id}/commit/{oid}", "success": True}
        )

    def info(self, body, id, revision="main"):
        commit, repo = self.at(id, revision), self.repo(id)
        known = {"id": id, "sha": commit.oid, "private": repo.private, "gated": False, "disabled": False}
        siblings = [{"rfilename": path} for path in sorted(commit.tree)]
        raise Answer(200, {**known, "tags": [], "likes": 0, "downloads": 0, "siblings": siblings})

    def tree(self, body, id, revision, folder=""):
        commit = self.at(id, revision)
        recursive = self.query.get("recursive", ["false"])[0].lower() in ("true", "1")
        inside = f"{folder}/" if folder else ""
        found = [path for path in commit.tree if path.startswith(inside)]
        if folder and not found:
            raise Answer(404, {"error": "Entry not found"}, X_Error_Code="EntryNotFound")
        entries = {}
        for path in sorted(found):
            parts = path[len(inside) :].split("/")
            for depth in range(1, len(parts) if recursive else min(2, len(parts))):
                name = inside + "/".join(parts[:depth])
                entries[name] = {"type": "directory", "path": name, "oid": "0" * 40, "size": 0}
            if recursive or len(parts) == 1:
                entries[path] = self.described(commit, path)
        raise Answer(200, list(entries.values()))

    def paths_info(self, body, id, revision):
        commit = self.at(id, revision)
        if "json" in self.headers.get("Content-Type", ""):
            asked = json.loads(body)["paths"]
        else:
            asked = parse_qs(body.decode())["paths"]
        found = []
        for path in [asked] if isinstance(asked, str) else asked:
            if path in commit.tree:
                found.append(self.described(commit, path))
            elif any(name.startswith(f"{path}/") for name in commit.tree):
                found.append({"type": "directory", "path": path, "oid": "0" * 40, "size": 0})
        raise Answer(200, found)

    def described(self, commit, path):
        entry = commit.tree[path]
        known = {"type": "file", "path": path, "oid": entry.oid, "size": entry.size}
        if entry.sha256:
            known["lfs"] = {"oid": entry.sha256, "size": entry.size, "pointerSize": 130}
        if "expand" in self.query:
            known["lastCommit"] = {"id": commit.oid, "title": commit.title, "date": "2020-01-01T00:00:00.000Z"}
        return known

    def refs(self, body, id):
        repo = self.repo(id)
        listed = {
            kind: [{"name": n, "ref": f"refs/{where}/{n}", "targetCommit": oid} for n, oid in refs.items()]
            for kind, where, refs in (("branches", "heads", repo.branches), ("tags", "tags", repo.tags))
        }
        raise Answer(200, {**listed, "converts": []})

    def commits(self, body, id, revision):
        self.at(id, revision)
        listed = [
            {"id": c.oid, "title": c.title, "message": "", "date": "2020-01-01T00:00:00.000Z", "authors": []}
            for c in reversed(self.repo(id).history())
        ]
        raise Answer(200, listed)

    def tag(self, body, id, revision):
        self.signed_in()
        repo, name = self.repo(id), json.loads(body)["tag"]
        if name in repo.tags:
            raise Answer(409, {"error": f"Tag {name} already exists"})
        repo.tags[name] = self.at(id, revision).oid
        raise Answer(200, {})

    def branch(self, body, id, name):
        self.signed_in()
        repo = self.repo(id)
        if name in repo.branches:
            raise Answer(409, {"error": "Reference already exists"})
        repo.branches[name] = self.at(id, json.loads(body).get("startingPoint", "main")).oid
        raise Answer(200, {})

    def resolve(self, body, id, revision, file):
        commit = self.at(id, revision)
        entry = commit.tree.get(file)
        if entry is None:
            raise Answer(404, {"error": "Entry not found"}, X_Error_Code="EntryNotFound", X_Repo_Commit=commit.oid)
        blob = self.hub.blob(entry.sha256 or entry.oid)
        headers = {"ETag": f'"{entry.sha256 or entry.oid}"', "X-Repo-Commit": commit.oid, "Accept-Ranges": "bytes"}
        headers = {name.replace("-", "_"): value for name, value in headers.items()}
        if self.command == "HEAD":
            raise Answer(200, b"", Content_Length=str(entry.size), **headers)
        ranged = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        with blob.open("rb") as stored:
            if not ranged:
                raise Answer(200, stored.read(), **headers)
            first = int(ranged[1])
            last = min(int(ranged[2] or entry.size - 1), entry.size - 1)
            if first >= entry.size:
                raise Answer(416, b"", **headers)
            stored.seek(first)
            piece = stored.read(last - first + 1)
        raise Answer(206, piece, Content_Range=f"bytes {first}-{last}/{entry.size}", **headers)

    def who(self, body):
        self.signed_in()
        raise Answer(200, {"type": "user", "name": "me", "orgs": [], "auth": {"type": "access_token"}})

    # Xet: uploads are accepted and counted, their content is not read.

    def xet_token(self, body, id, revision):
        self.signed_in()
        self.repo(id)
        expires = int(time.time()) + 3600
        known = {"casUrl": self.hub.url, "exp": expires, "accessToken": "xet-secret-token"}
        headers = {"X_Xet_Cas_Url": self.hub.url, "X_Xet_Access_Token": "xet-secret-token"}
        raise Answer(200, known, X_Xet_Token_Expiration=str(expires), **headers)

    def xorb(self, body, hash):
        new = hash not in self.hub.xorbs
        self.hub.xorbs[hash] = len(body)
        self.hub.bytes_put += len(body)
        raise Answer(200, {"was_inserted": new})

    def xet_shard(self, body):
        self.hub.xet_shards.append(body)
        raise Answer(200, b'{"type":"result","result":1}\n', Content_Type="application/x-ndjson")


ID, REV = r"(?P<id>[^/]+/[^/]+)", r"(?P<revision>[^/]+)"
ROUTES = [
    ("POST", "/api/repos/create", Handler.create),
    ("POST", "/api/validate-yaml", Handler.validate_yaml),
    ("POST", f"/api/datasets/{ID}/preupload/{REV}", Handler.preupload),
    ("POST", rf"/datasets/{ID}\.git/info/lfs/objects/batch", Handler.lfs_batch),
    ("PUT", r"/lfs/(?P<oid>[0-9a-f]{64})", Handler.lfs_put),
    ("POST", r"/lfs/(?P<oid>[0-9a-f]{64})/verify", Handler.lfs_verify),
    ("POST", f"/api/datasets/{ID}/commit/{REV}", Handler.commit),
    ("GET", f"/api/datasets/{ID}/tree/{REV}(?:/(?P<folder>.+))?", Handler.tree),
    ("POST", f"/api/datasets/{ID}/paths-info/{REV}", Handler.paths_info),
    ("GET", f"/api/datasets/{ID}/refs", Handler.refs),
    ("GET", f"/api/datasets/{ID}/commits/{REV}", Handler.commits),
    ("POST", f"/api/datasets/{ID}/tag/{REV}", Handler.tag),
    ("POST", f"/api/datasets/{ID}/branch/(?P<name>[^/]+)", Handler.branch),
    ("GET", f"/api/datasets/{ID}/xet-write-token/{REV}", Handler.xet_token),
    ("GET", f"/api/datasets/{ID}/revision/{REV}", Handler.info),
    ("GET", f"/api/datasets/{ID}", Handler.info),
    (("GET", "HEAD"), f"/datasets/{ID}/resolve/{REV}/(?P<file>.+)", Handler.resolve),
    ("GET", "/api/whoami-v2", Handler.who),
    ("POST", r"/v1/xorbs/default/(?P<hash>[0-9a-f]+)", Handler.xorb),
    ("POST", r"/v[12]/shards", Handler.xet_shard),
]
