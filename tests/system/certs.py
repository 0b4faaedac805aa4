# SPDX-License-Identifier: MIT
"""Certificates for tests, made by openssl."""
import os
import subprocess


def openssl(*args):
    subprocess.run(["openssl", *args], check=True, capture_output=True)


def self_signed(cert, key, *names, days=30, rsa=False):
    """A certificate of its own for these names."""
    os.makedirs(os.path.dirname(cert), exist_ok=True)
    kind = ["rsa:2048"] if rsa else ["ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    alt = ",".join(f"DNS:{n}" for n in names)
    openssl("req", "-x509", "-newkey", *kind, "-nodes", "-days", str(days), "-subj", f"/CN={names[0]}", "-addext", f"subjectAltName={alt}", "-keyout", key, "-out", cert)
    os.chmod(key, 0o600)


def signed(cert, key, name, ca, ca_key):
    """A client's certificate."""
    openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", f"/O=Acme/CN={name}", "-keyout", key, "-out", cert + ".csr")
    openssl("x509", "-req", "-in", cert + ".csr", "-CA", ca, "-CAkey", ca_key, "-CAcreateserial", "-days", "20", "-out", cert)
