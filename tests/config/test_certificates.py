"""What a configuration says of certificates and keys that cannot be used, or not for long."""

import subprocess
from pathlib import Path

import pytest

from edgecache.config import certificates
from edgecache.config.listeners import CertificateConfig
from edgecache.config.load import ConfigError, load
from edgecache.edge.tls import Chooser, plain_context, server_contexts

Pair = tuple[Path, Path]


def config(folder: Path, tls: str) -> Path:
    file = folder / "edge.yaml"
    file.write_text(f"origin: http://o\nlisten:\n  - address: ':443'\n    tls: {tls}\n")
    return file


def encrypted(key: Path) -> None:
    subprocess.run(
        ["openssl", "ec", "-in", key, "-aes128", "-passout", "pass:x", "-out", key], check=True, capture_output=True
    )


def another(key: Path) -> None:
    subprocess.run(
        ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key], check=True, capture_output=True
    )


@pytest.mark.parametrize(
    ("spoil", "key", "words"),
    [
        pytest.param(lambda cert, key: cert.unlink(), "cert", "no such file", id="no-certificate"),
        pytest.param(lambda cert, key: key.unlink(), "key", "no such file", id="no-key"),
        pytest.param(lambda cert, key: cert.write_text("x"), "cert", "with a certificate", id="no-pem"),
        pytest.param(lambda cert, key: key.write_text("x"), "key", "with a private key", id="key-no-pem"),
        pytest.param(lambda cert, key: another(key), "key", "this is another's", id="mismatch"),
        pytest.param(lambda cert, key: encrypted(key), "key", "without a pass phrase", id="encrypted"),
        pytest.param(lambda cert, key: cert.write_bytes(key.read_bytes()), "cert", "with a certificate", id="swapped"),
    ],
)
def test_what_is_wrong_is_named_with_its_path_and_key(certificate: Pair, tmp_path: Path, spoil, key, words) -> None:
    cert_file, key_file = tmp_path / "a.pem", tmp_path / "a.key"
    cert_file.write_bytes(certificate[0].read_bytes())
    key_file.write_bytes(certificate[1].read_bytes())
    spoil(cert_file, key_file)
    with pytest.raises(ConfigError) as caught:
        load(config(tmp_path, f"{{certificates: [{{cert: {cert_file}, key: {key_file}}}]}}"))
    (problem,) = caught.value.problems
    assert problem.path == f"listen[0].tls.certificates[0].{key}"
    assert problem.where.endswith(":4")
    assert problem.value == str({"cert": cert_file, "key": key_file}[key])
    assert words in problem.expected


def test_one_file_may_hold_both(certificate: Pair, tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes(certificate[0].read_bytes() + certificate[1].read_bytes())
    loaded = load(config(tmp_path, f"{{certificates: [{{cert: {both}}}], min_version: 1.3}}"))
    (context,) = server_contexts(loaded.config)
    assert context is not None
    assert context.minimum_version.name == "TLSv1_3"


@pytest.mark.parametrize(
    ("tls", "path"),
    [
        ("{certificates: []}", "listen[0].tls.certificates"),
        ("{certificates: [{cert: a}], min_version: '1.1'}", "listen[0].tls.min_version"),
        ("{}", "listen[0].tls.certificates"),
    ],
)
def test_tls_without_what_it_needs(tmp_path: Path, tls: str, path: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(config(tmp_path, tls))
    assert [problem.path for problem in caught.value.problems] == [path]


def test_ciphers_that_are_none(certificate: Pair, tmp_path: Path) -> None:
    cert, key = certificate
    with pytest.raises(ConfigError) as caught:
        load(config(tmp_path, f"{{certificates: [{{cert: {cert}, key: {key}}}], ciphers: NONSENSE}}"))
    assert [problem.path for problem in caught.value.problems] == ["listen[0].tls.ciphers"]


def test_a_certificate_that_ends_soon_is_warned_about(certificate: Pair, tmp_path: Path) -> None:
    """The fixture's lives for two days."""
    cert, key = certificate
    (warning,) = load(config(tmp_path, f"{{certificates: [{{cert: {cert}, key: {key}}}]}}")).warnings
    assert str(cert) in warning
    assert "expires" in warning


@pytest.mark.parametrize(
    ("left_s", "words"),
    [(15 * 86_400, None), (13 * 86_400, "expires in 13 days"), (3600, "expires today"), (-1, "has expired")],
)
def test_how_the_end_is_told(left_s: int, words: str | None) -> None:
    found = certificates.ending(CertificateConfig(cert="a.pem"), certificates.Facts((), 1e9 + left_s), 1e9)
    assert (found is None) if words is None else (found is not None and words in found)


def test_names_of_a_certificate(certificate: Pair) -> None:
    facts = certificates.read(CertificateConfig(cert=str(certificate[0]), key=str(certificate[1])))
    assert facts.names == ("localhost",)


def test_the_first_to_name_something_keeps_it() -> None:
    import types

    tls = types.SimpleNamespace(min_version="1.2", ciphers=None)
    one, other = (plain_context(tls) for _ in range(2))  # type: ignore[arg-type]
    chooser = Chooser()
    chooser.add(("a.example", "*.b.example"), one)
    chooser.add(("a.example", "*.b.example", "x.b.example"), other)
    assert chooser.find("A.example") is one
    assert chooser.find("y.b.example") is one
    assert chooser.find("x.b.example") is other
    assert chooser.find("b.example") is None
    assert chooser.find("z.y.b.example") is None
