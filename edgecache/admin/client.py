"""The command line's side of the admin API: one request, one answer, one line where it goes wrong.

It uses the standard library's client, so that `edgecache purge` starts quickly, and no proxy settings of the
environment lead a token astray.
"""

import http.client
import json
import ssl
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlencode, urlsplit

_MAX_ANSWER = 64 << 20
_OF_ITS_OWN = frozenset({9, 10, 62, 64})
"""OpenSSL's X509_V_ERR_… for times and names: whom one trusts does not matter."""


class ClientError(Exception):
    """The edge could not be asked, or refused; the message is one line for a person."""


class AdminClient:
    """Speaks to the admin API at `base`, such as http://127.0.0.1:8081."""

    def __init__(self, base: str, token: str | None, *, timeout_s: float = 30.0) -> None:
        try:
            parts = urlsplit(base if "//" in base else f"http://{base}")
            host, port = parts.hostname, parts.port
        except ValueError:
            host = port = None
        if not host or parts.scheme not in ("http", "https") or parts.path.strip("/") or parts.query:
            raise ClientError(f"{base!r} is not the URL of an edge; expected something like http://127.0.0.1:8081")
        self._secure = parts.scheme == "https"
        self._host = host
        self._port = port
        self._base = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        self._token = token
        self._timeout_s = timeout_s

    def stats(self) -> dict[str, Any]:
        return self._ask("GET", "/v1/stats")

    def pops(self) -> dict[str, Any]:
        """Of a GeoDNS."""
        return self._ask("GET", "/v1/pops")

    def explain(self, url: str, method: str, fields: Iterable[str]) -> dict[str, Any]:
        query = urlencode([("url", url), ("method", method), *(("header", field) for field in fields)])
        return self._ask("GET", f"/v1/explain?{query}")

    def purge(self, body: dict[str, Any]) -> dict[str, Any]:
        return self._ask("POST", "/v1/purge", body)

    def audit(self, *, before: int | None, limit: int) -> dict[str, Any]:
        """Who purged what: `limit` of those numbered less than `before`, newest first."""
        query = {"limit": limit} if before is None else {"before": before, "limit": limit}
        return self._ask("GET", f"/v1/audit?{urlencode(query)}")

    def _ask(self, method: str, target: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        headers = {"Accept": "application/json", "Connection": "close"}
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        status, answer = self._exchange(method, target, data, headers)
        try:
            value = json.loads(answer)
        except ValueError:
            value = None
        if status == 200 and isinstance(value, dict):
            return value
        raise ClientError(self._refusal(status, value))

    def _exchange(self, method: str, target: str, data: bytes | None, headers: dict[str, str]) -> tuple[int, bytes]:
        connection = (
            http.client.HTTPSConnection(self._host, self._port, timeout=self._timeout_s)
            if self._secure
            else http.client.HTTPConnection(self._host, self._port, timeout=self._timeout_s)
        )
        try:
            connection.request(method, target, data, headers)
            response = connection.getresponse()
            answer = response.read(_MAX_ANSWER)
        except ConnectionRefusedError:
            raise ClientError(f"no edge answers at {self._base}; is it running? (--to names another)") from None
        except TimeoutError:
            raise ClientError(f"the edge at {self._base} did not answer within {self._timeout_s:g} s") from None
        except ssl.SSLCertVerificationError as error:
            remedy = "" if error.verify_code in _OF_ITS_OWN else " (an authority of your own: SSL_CERT_FILE=ca.pem)"
            raise ClientError(
                f"the certificate of {self._base} is not trusted: {error.verify_message}{remedy}"
            ) from None
        except ssl.SSLError as error:
            raise ClientError(f"no secure connection to {self._base}: {error.reason or error}") from None
        except http.client.RemoteDisconnected:
            guess = "" if self._secure else "; does it speak TLS? Then --to https://…"
            raise ClientError(f"what answers at {self._base} is no edge: it ended the connection{guess}") from None
        except http.client.HTTPException as error:  # some of them are OSErrors too
            raise ClientError(f"what answers at {self._base} is no edge ({type(error).__name__})") from None
        except OSError as error:
            raise ClientError(f"cannot reach {self._base}: {error.strerror or error}") from None
        else:
            return response.status, answer
        finally:
            connection.close()

    def _refusal(self, status: int, value: Any) -> str:
        error = value.get("error") if isinstance(value, dict) else None
        if not isinstance(error, dict):
            return f"what answers at {self._base} is no edge's admin API (status {status}); --to names another"
        if status == 401:
            if self._token is None:
                return f"{self._base} needs its token: give --token-file, or set EDGECACHE_TOKEN"
            hint = "it is for another address, or was replaced (--token-file names another)"
            return f"{self._base} does not accept this token; {hint}"
        path = f"{error['path']}: " if error.get("path") else ""
        return f"{path}{error.get('message', 'refused')}"
