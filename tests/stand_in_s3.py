"""A small S3 over loopback, in memory: objects, listings, multipart uploads, conditional writes."""

import hashlib
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

KEY_ID, SECRET = "AKIASTANDIN", "stand-in/secret+key"


class StandInS3:
    """Buckets of bytes; `calls` remembers every call that was answered."""

    def __init__(self, *buckets):
        self.buckets = {name: {} for name in buckets}
        self.uploads = {}
        self.calls = []
        self.lock = threading.RLock()
        self.url = ""

    def environment(self):
        """What makes botocore, and s3fs above it, speak to this server."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": KEY_ID,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }


@contextmanager
def serving(store):
    """Serve `store` on a free loopback port while the block runs."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"store": store}))
    server.daemon_threads = True
    store.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield store
    finally:
        server.shutdown()
        server.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    store: StandInS3

    def log_message(self, *args):
        pass

    def do_GET(self):
        url = urlsplit(self.path)
        self.query = {name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
        bucket, _, key = unquote(url.path).lstrip("/").partition("/")
        body = self.read_body()
        with self.store.lock:
            self.store.calls.append((self.command, unquote(url.path), self.query))
            if KEY_ID not in self.headers.get("Authorization", ""):
                return self.fail(403, "AccessDenied")
            if not bucket:
                return self.listing_of_buckets()
            if bucket not in self.store.buckets:
                return self.fail(404, "NoSuchBucket")
            objects = self.store.buckets[bucket]
            return self.on_bucket(bucket, objects, body) if not key else self.on_object(objects, bucket, key, body)

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    def read_body(self):
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if "aws-chunked" not in self.headers.get("Content-Encoding", ""):
            return data
        plain, at = bytearray(), 0
        while True:
            end = data.index(b"\r\n", at)
            size = int(data[at:end].split(b";")[0], 16)
            if not size:
                return bytes(plain)
            plain += data[end + 2 : end + 2 + size]
            at = end + 2 + size + 2

    def answer(self, status, body=b"", kind="application/xml", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Type", kind)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def fail(self, status, code):
        self.answer(status, f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode())

    def listing_of_buckets(self):
        names = "".join(f"<Bucket><Name>{name}</Name></Bucket>" for name in self.store.buckets)
        self.answer(200, f"<ListAllMyBucketsResult><Buckets>{names}</Buckets></ListAllMyBucketsResult>".encode())

    def on_bucket(self, bucket, objects, body):
        if self.command == "POST" and "delete" in self.query:
            for key in re.findall(rb"<Key>(.*?)</Key>", body):
                objects.pop(key.decode(), None)
            return self.answer(200, b"<DeleteResult/>")
        if self.command == "HEAD":
            return self.answer(200)
        prefix, delimiter = self.query.get("prefix", ""), self.query.get("delimiter", "")
        contents, folders = [], set()
        for key, data in sorted(objects.items()):
            if key.startswith(prefix):
                head, found, _ = key[len(prefix) :].partition(delimiter) if delimiter else (key, "", "")
                if found:
                    folders.add(prefix + head + delimiter)
                else:
                    contents.append(
                        f"<Contents><Key>{escape(key)}</Key><Size>{len(data)}</Size><ETag>{etag(data)}</ETag>"
                        "<LastModified>2020-01-01T00:00:00.000Z</LastModified></Contents>"
                    )
        listed = "".join(contents[: int(self.query.get("max-keys", 100_000))])
        listed += "".join(f"<CommonPrefixes><Prefix>{escape(f)}</Prefix></CommonPrefixes>" for f in sorted(folders))
        counted = f"<KeyCount>{len(contents) + len(folders)}</KeyCount><IsTruncated>false</IsTruncated>"
        self.answer(200, f"<ListBucketResult><Name>{bucket}</Name>{counted}{listed}</ListBucketResult>".encode())

    def on_object(self, objects, bucket, key, body):
        if self.command == "POST" and "uploads" in self.query:
            upload = f"upload-{len(self.store.uploads)}"
            self.store.uploads[upload] = {}
            names = f"<Bucket>{bucket}</Bucket><Key>{escape(key)}</Key><UploadId>{upload}</UploadId>"
            return self.answer(200, f"<InitiateMultipartUploadResult>{names}</InitiateMultipartUploadResult>".encode())
        if "uploadId" in self.query:
            return self.on_upload(objects, key, body)
        if self.command == "PUT":
            if self.headers.get("If-None-Match") == "*" and key in objects:
                return self.fail(412, "PreconditionFailed")
            if source := self.headers.get("x-amz-copy-source"):
                from_bucket, _, from_key = unquote(source).lstrip("/").partition("/")
                body = self.store.buckets[from_bucket][from_key]
            objects[key] = body
            return self.answer(200, b"<CopyObjectResult/>" if source else b"", ETag=etag(body))
        if self.command == "DELETE":
            objects.pop(key, None)
            return self.answer(204)
        if key not in objects:
            return self.fail(404, "NoSuchKey")
        data = objects[key]
        known = {"ETag": etag(data), "Accept_Ranges": "bytes", "Last_Modified": "Wed, 01 Jan 2020 00:00:00 GMT"}
        if self.command == "HEAD":
            return self.answer(200, Content_Length=str(len(data)), **known)
        if ranged := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            first, last = int(ranged[1]), min(int(ranged[2] or len(data)), len(data) - 1)
            if first >= len(data):
                return self.fail(416, "InvalidRange")
            known["Content_Range"] = f"bytes {first}-{last}/{len(data)}"
            return self.answer(206, data[first : last + 1], "binary/octet-stream", **known)
        return self.answer(200, data, "binary/octet-stream", **known)

    def on_upload(self, objects, key, body):
        parts = self.store.uploads.get(self.query["uploadId"])
        if parts is None:
            return self.fail(404, "NoSuchUpload")
        if self.command == "PUT":
            parts[int(self.query["partNumber"])] = body
            return self.answer(200, ETag=etag(body))
        if self.command == "DELETE":
            self.store.uploads.pop(self.query["uploadId"])
            return self.answer(204)
        if self.headers.get("If-None-Match") == "*" and key in objects:
            return self.fail(412, "PreconditionFailed")
        objects[key] = b"".join(parts[number] for number in sorted(parts))
        done = f"<CompleteMultipartUploadResult><Key>{escape(key)}</Key></CompleteMultipartUploadResult>"
        return self.answer(200, done.encode())


def etag(data):
    return f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'
