"""Images posted over HTTP -> landmarks as JSON: one model, a thread for each request.

    python examples/serve_http.py --model shoes --port 8000
    curl --data-binary @photo.jpg localhost:8000  # {"p0": [x, y, score], …}

A toy to build on, for this machine alone; examples/triton_client.py is for a real server.
"""

from __future__ import annotations

import argparse
import io
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
from PIL import Image, ImageOps

import lmk


def make_server(landmarker: lmk.Landmarker, port: int) -> ThreadingHTTPServer:
    """A server on this machine's `port`; 0: any that is free."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # noqa: N802
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            try:
                picture = ImageOps.exif_transpose(Image.open(io.BytesIO(body)))
                found = landmarker(np.asarray(picture.convert("RGB")))
            except (OSError, ValueError, Image.DecompressionBombError) as error:
                return self.send_error(400, "not an image", str(error))
            rows = np.column_stack([found.points, found.scores]).astype(float).round(3).tolist()
            answer = json.dumps(dict(zip(landmarker.names, rows, strict=True))).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)


def main(arguments: list[str] | None = None) -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description="Serve landmarks over HTTP.")
    parser.add_argument("--model", required=True, help="a category or an exported model")
    parser.add_argument("--port", type=int, default=8000)
    given = parser.parse_args(arguments)
    with lmk.load(given.model) as landmarker, make_server(landmarker, given.port) as server:
        server.serve_forever()


if __name__ == "__main__":
    try:
        main()
    except (lmk.UserError, OSError, KeyboardInterrupt) as error:
        raise SystemExit(str(error)) from None
