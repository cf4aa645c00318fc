"""Google Cloud Storage on 127.0.0.1, its objects in memory: what `gs://` needs to work as it does on a TPU VM.

The library reaches a bucket by two ways, and both end here. Orbax's arrays go through tensorstore, which can be told
another address. All else goes through epath and TensorFlow, which can't: it is sent through a proxy, which answers for
www.googleapis.com itself, with a certificate made for this purpose.

An object store has no folders, no rename, no append: an object is there as a whole or not at all.
"""

import contextlib
import json
import re
import ssl
import subprocess
import sys
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, unquote, urlsplit

HOSTS = ("www.googleapis.com", "storage.googleapis.com")


class Objects:
    """The objects of one bucket, by name. refused: writing to these names is answered with 403."""

    def __init__(self):
        self.objects = {}  # name -> (bytes, generation)
        self.refused = re.compile("(?!)")
        self.lock = threading.Lock()
        self.generations = 0

    def write(self, name: str, data: bytes) -> None:
        self.generations += 1
        self.objects[name] = data, self.generations

    def about(self, name: str) -> dict:
        data, generation = self.objects[name]
        return {"kind": "storage#object", "name": name, "size": str(len(data)), "generation": str(generation),
                "metageneration": "1", "updated": "2026-01-01T00:00:00.000Z",
                "timeCreated": "2026-01-01T00:00:00.000Z"}  # fmt: skip


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each answer waits for 40 ms
    bucket: Objects
    context: ssl.SSLContext

    def log_message(self, *_):
        pass

    def do_CONNECT(self):
        """The proxy's part: instead of leading on to the host that was asked for, this server speaks for it."""
        self.send_response(200)
        self.end_headers()
        self.connection = self.context.wrap_socket(self.connection, server_side=True)
        self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb", buffering=0)
        self.close_connection = False

    def answer(self, status: int, body: bytes = b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def tell(self, value):
        self.answer(200, json.dumps(value).encode(), Content_Type="application/json")

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        pieces = []
        while size := int(self.rfile.readline(), 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(pieces)

    def handle_any(self):
        body = self.body()
        url = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        with self.bucket.lock:
            self.route(self.command, url.path, query, body)

    do_GET = do_POST = do_PUT = do_DELETE = handle_any

    def route(self, method: str, path: str, query: dict, body: bytes):
        bucket = self.bucket
        if path == "/refuse":  # for tests
            bucket.refused = re.compile(body.decode())
            return self.answer(204)
        if match := re.fullmatch(r"/upload/storage/v1/b/[^/]+/o", path):
            return self.upload(query, body)
        if match := re.fullmatch(r"/resumable/(.*)", path):
            bucket.write(unquote(match[1]), body)
            return self.tell(bucket.about(unquote(match[1])))
        if re.fullmatch(r"/storage/v1/b/[^/]+", path):
            return self.tell({"kind": "storage#bucket", "name": "bucket", "location": "US"})
        if path.endswith("/storageLayout"):
            return self.tell({"hierarchicalNamespace": {"enabled": False}})
        if re.fullmatch(r"/storage/v1/b/[^/]+/o/?", path):
            return self.tell(self.listed(query))
        if match := re.fullmatch(r"/storage/v1/b/[^/]+/o/([^/]+)/rewriteTo/b/[^/]+/o/([^/]+)", path):
            source, target = map(unquote, match.groups())
            if source not in bucket.objects:
                return self.answer(404)
            bucket.write(target, bucket.objects[source][0])
            return self.tell({"done": True, "resource": bucket.about(target)})
        match = re.fullmatch(r"/storage/v1/b/[^/]+/o/([^/]+)", path) or re.fullmatch(r"/[^/]+/(.*)", path)
        name = unquote(match[1]) if match else None
        if name not in bucket.objects:
            return self.answer(404, b'{"error": {"code": 404}}')
        if not self.condition(name, query):
            return self.answer(412)
        if method == "DELETE":
            if bucket.refused.match(name):
                return self.answer(403)
            del bucket.objects[name]
            return self.answer(204)
        if path.startswith("/storage/v1") and query.get("alt") != "media":
            return self.tell(bucket.about(name))
        return self.content(name)

    def condition(self, name: str, query: dict) -> bool:
        generation = self.bucket.objects[name][1] if name in self.bucket.objects else 0
        wanted, unwanted = query.get("ifGenerationMatch"), query.get("ifGenerationNotMatch")
        return (wanted is None or int(wanted) == generation) and (unwanted is None or int(unwanted) != generation)

    def upload(self, query: dict, body: bytes):
        name = query["name"]
        if self.bucket.refused.match(name):
            return self.answer(403, b'{"error": {"code": 403}}')
        if not self.condition(name, query):
            return self.answer(412)
        if query["uploadType"] == "resumable":
            return self.answer(200, Location=f"https://{HOSTS[0]}/resumable/{quote(name)}")
        self.bucket.write(name, body)
        return self.tell(self.bucket.about(name))

    def content(self, name: str):
        data, generation = self.bucket.objects[name]
        about = {"x_goog_generation": generation, "Content_Type": "application/octet-stream"}
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if not match:
            return self.answer(200, data, **about)
        start, end = int(match[1]), min(int(match[2] or len(data) - 1), len(data) - 1)
        if start >= len(data):
            return self.answer(416)
        return self.answer(206, data[start : end + 1], Content_Range=f"bytes {start}-{end}/{len(data)}", **about)

    def listed(self, query: dict) -> dict:
        """All in one page: names below a prefix and, with a delimiter, what stands before the next one."""
        prefix, delimiter, end = query.get("prefix", ""), query.get("delimiter"), query.get("endOffset")
        items, prefixes = [], set()
        for name in sorted(self.bucket.objects):
            if not name.startswith(prefix) or name < query.get("startOffset", "") or (end and name >= end):
                continue
            below, found, _ = name[len(prefix) :].partition(delimiter) if delimiter else (name, "", "")
            if found:
                prefixes.add(prefix + below + delimiter)
            else:
                items.append(self.bucket.about(name))
        most = int(query.get("maxResults", 10**6))
        return {"kind": "storage#objects", "items": items[:most], "prefixes": sorted(prefixes)[:most]}


def certificate(folder) -> tuple[str, str]:
    """A certificate for Google's names and its key, good for a day and for whoever is told to trust it."""
    certificate, key = str(folder / "certificate.pem"), str(folder / "key.pem")
    names = ",".join(f"DNS:{host}" for host in HOSTS)
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
         "-subj", "/CN=fake", "-addext", f"subjectAltName={names}", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    return certificate, key


class Bucket:
    """What a test sees of the bucket, and puts there."""

    def __init__(self, address: str):
        self._address = address

    def _ask(self, path: str, data: bytes | None = None) -> bytes:
        with urllib.request.urlopen(f"{self._address}/{path}", data) as answer:
            return answer.read()

    def names(self) -> list[str]:
        return [item["name"] for item in json.loads(self._ask("storage/v1/b/bucket/o"))["items"]]

    def read(self, name: str) -> bytes:
        return self._ask(f"storage/v1/b/bucket/o/{quote(name, safe='')}?alt=media")

    def write(self, name: str, data: bytes) -> None:
        self._ask(f"upload/storage/v1/b/bucket/o?uploadType=media&name={quote(name, safe='')}", data)

    @contextlib.contextmanager
    def refusing(self, pattern: str):
        """Names that begin so can't be written: an account that may only read."""
        self._ask("refuse", pattern.encode())
        yield
        self._ask("refuse", b"(?!)")


@contextlib.contextmanager
def served(folder):
    """(Bucket, the environment in which `gs://bucket` leads to it) while this lasts. folder: for the certificate.

    In a process of its own: TensorFlow holds Python's lock while it waits for some of the answers.
    """
    public, key = certificate(folder)
    process = subprocess.Popen([sys.executable, __file__, public, key], stdout=subprocess.PIPE, text=True)
    address = process.stdout.readline().strip()
    environment = {
        "TENSORSTORE_GCS_HTTP_URL": address,
        "https_proxy": address,
        "no_proxy": "127.0.0.1",
        "CURL_CA_BUNDLE": public,
        "GOOGLE_AUTH_TOKEN_FOR_TESTING": "token",
        "NO_GCE_CHECK": "true",
    }
    try:
        yield Bucket(address), environment
    finally:
        process.kill()
        process.wait()


def serve(public: str, key: str) -> None:
    """Serves for ever, after a line with the address."""
    Handler.bucket, Handler.context = Objects(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    Handler.context.load_cert_chain(public, key)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    serve(*sys.argv[1:])
