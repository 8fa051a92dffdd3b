"""Shapes of secrets, each with the part that must be found nowhere.

No secret stands here: `{a24}` becomes 24 letters and digits, `{h40}` 40 hexadecimal ones, `{u16}`
16 capitals and digits, `{d9}` nine digits, drawn anew from the shape's own text. Two braces around
a body, as in `{a24}`, are what must not be found; what stands around it may stay.
"""

from __future__ import annotations

import random
import re
import string
from typing import NamedTuple

_ALPHABETS = {
    "a": string.ascii_letters + string.digits,
    "h": "0123456789abcdef",
    "u": string.ascii_uppercase + string.digits,
    "d": string.digits,
    "b": string.ascii_letters + string.digits + "+/",
}
_BODY = re.compile(r"\{([ahudb])(\d+)\}")

TEMPLATES = (
    # addresses
    ("https://user:{a14}@host.example/x", "https://user:p@{a14}@host.example/x")
    + ("https://user:p@@{a14}@host.example/x", "git+https://{a14}@host.example/r.git")
    + ("postgres://user:{a6}/{a8}@db.example:5432/x", "redis://:{a14}@cache.example:6379/0")
    + ("mongodb+srv://user:{a14}@c.example/?w=1", "amqp://user:{a14}@mq.example//")
    + ("socks5://user:{a14}@proxy.example:1080", "see //user:{a14}@host.example/x")
    + ("https://h.example/x?access_token={a16}&p=1", "https://h.example/x#access_token={a16}")
    + ("https://h.example/x?api_key={a16}", "https://h.example/x?sv=1&sig={a16}%3D")
    + (
        "https://b.example/k?X-Amz-Signature={h64}",
        "https://b.example/k?X-Amz-Security-Token={b40}",
    )
    + ("https://h.example/x?jwt={a16}", "https://h.example/x?sessionid={a16}")
    + ("jdbc:postgresql://h.example/x?user=me&password={a12}",)
    + ("https://hooks.slack.com/services/T{u8}/B{u8}/{a24}",)
    + ("https://discord.com/api/webhooks/123456789012345678/{a60}",)
    # headers
    + ("Authorization: Bearer {a20}", "Authorization: Basic {b20}=", "Authorization: token {a20}")
    + ("{{'Authorization': 'Bearer {a20}'}}", "authorization: ApiKey {a24}")
    + ("Authorization: AWS4-HMAC-SHA256 Credential={u20}/20260101, Signature={h64}",)
    + ("Cookie: session={a20}; theme=dark", "Set-Cookie: sid={a20}; Path=/; HttpOnly")
    + ("{{'Cookie': 'a=1; b={a20}'}}", "X-Api-Key: {a20}", "X-Auth-Token: {a20}")
    + ("X-Amz-Security-Token: {b60}", "Proxy-Authorization: Basic {b20}=", "bearer {a24}")
    # names with a value, in a sentence, a program, a file
    + ("clientSecret: {a16}", "client_secret={a16}", '{{"clientSecret": "{a16}"}}')
    + ("failed with OPENAI_API_KEY={a20} in the environment", "export HF_TOKEN={a20}")
    + ("password={a7}", "PGPASSWORD={a12} psql", "DB_PASS={a12}", "MYSQL_PWD: {a12}")
    + ("{{'password': '{a10}'}}", "passphrase: {a12}", "api key: {a20}", "apiKey={a20}")
    + ("AWS_SECRET_ACCESS_KEY={b40}", "aws_session_token = {b60}", "secretKey: '{a20}'")
    + ("AccountName=x;AccountKey={b40}==;EndpointSuffix=y", "Server=s;User Id=u;Password={a12};")
    + ("//registry.example/:_authToken={a30}", "private_key_id: x, signing_key: {a24}")
    + ("auth_token => {a16}", "secret={a12}", "accessToken: {a24}", "refresh_token={a24}")
    + ("GITHUB_PAT={a20}", "STRIPE_KEY={a20}", "ENCRYPTION_KEY={a32}", "<password>{a12}</password>")
    + ('<add name="password" value="{a12}"/>', 'WEBHOOK="{a20}"', "tool --api-key {a16} run")
    + ("tool --password '{a10}'", "curl -u me:{a12} https://h.example", "sshpass -p {a12} ssh h")
    + ("openssl rsa -passin pass:{a12}", "machine h login me password {a12}")
    + ("create user x identified by '{a12}'", '{{"username":"me","key":"{h32}"}}')
    + ('{{\\"apiKey\\": \\"{a20}\\"}}', "connection_string={a24}")
    # blocks
    + ("-----BEGIN RSA PRIVATE KEY-----\n{b64}\n{b64}\n-----END RSA PRIVATE KEY-----",)
    + ("-----BEGIN OPENSSH PRIVATE KEY-----\n{b70}\n{b64}==\n-----END OPENSSH PRIVATE KEY-----",)
    + ("-----BEGIN PRIVATE KEY-----\\n{b64}\\n{b64}\\n-----END PRIVATE KEY-----\\n",)
    + ("-----BEGIN EC PRIVATE KEY-----\n{b64}\n{b20}",)
    + ("-----BEGIN PGP PRIVATE KEY BLOCK-----\n\n{b64}\n=x\n-----END PGP PRIVATE KEY BLOCK-----",)
    + ("PuTTY-User-Key-File-3: ssh-rsa\nPrivate-Lines: 2\n{b64}\n{b64}\n",)
    # the issuers' own
    + ("hf_{a34}", "api_org_{a34}", "sk-{a48}", "sk-proj-{a60}", "sk-ant-api03-{a80}", "gsk_{a52}")
    + ("xai-{a80}", "pplx-{a48}", "r8_{a37}", "nvapi-{a64}", "dapi{h32}", "ghp_{a36}", "gho_{a36}")
    + ("ghs_{a36}", "github_pat_{a22}_{a59}", "glpat-{a20}", "glptt-{h40}", "npm_{a36}")
    + ("pypi-AgEIcHlwaS5vcmc{a80}", "rubygems_{h48}", "dckr_pat_{a27}", "cio{a32}")
    + ("CCIPAT_{a22}_{h40}", "sntrys_{a60}", "PMAK-{h24}-{h34}", "ATATT3{a60}", "figd_{a40}")
    + ("lin_api_{a40}", "pul-{h40}", "{a14}.atlasv1.{a60}", "AKIA{u16}", "ASIA{u16}", "AIza{a35}")
    + ("ya29.{a60}", "GOCSPX-{a28}", "1//0{a40}", "{a3}8Q~{a34}", "dop_v1_{h64}", "LTAI{a20}")
    + ("tskey-auth-{a20}", "hvs.{a24}", "nfp_{a40}", "sbp_{h40}", "pscale_tkn_{a43}")
    + ("dp.pt.{a43}", "AGE-SECRET-KEY-1{u58}", "sk_live_{a24}", "sk_test_{a24}", "rk_live_{a24}")
    + ("whsec_{a32}", "shpat_{h32}", "sq0csp-{a43}", "EAAA{a60}", "rzp_live_{a14}")
    + ("access-production-{h8}-{h4}-{h4}-{h4}-{h12}", "xoxb-{d12}-{d12}-{a24}", "xapp-1-{a40}")
    + ("{d9}:AA{a33}", "M{a23}.{a6}.{a27}", "SG.{a22}.{a43}", "key-{h32}", "SK{h32}")
    + ("{h32}-us12", "xkeysib-{h64}-{a16}", "NRAK-{u27}", "glsa_{a32}_{h8}", "phx_{a43}")
    + ("ntn_{a43}", "secret_{a43}", "pat{a14}.{h64}", "CFPAT-{a43}")
    + ("eyJ{a20}.eyJ{a40}.{a43}", "sk.eyJ{a40}.{a22}")
)
"""Each shape as one stands in a text, one brace of a literal pair doubled."""


class Shape(NamedTuple):
    """A text with secrets in it.

    Attributes:
        name: What it looks like.
        text: The text.
        secrets: What must be found nowhere once it is written.
    """

    name: str
    text: str
    secrets: tuple[str, ...]


def planted(template: str) -> Shape:
    """Return a template with its secrets drawn, the same ones each time."""
    chosen = random.Random(template)
    secrets: list[str] = []

    def drawn(found: re.Match[str]) -> str:
        kind, length = found[1], int(found[2])
        body = "".join(chosen.choice(_ALPHABETS[kind]) for _ in range(length - 2))
        body += {"u": "Q7", "d": "57", "h": "c7"}.get(kind, "x7")[: min(2, length)]
        if length >= 6:
            secrets.append(body)
        return body

    text = _BODY.sub(drawn, template.replace("{{", "\0").replace("}}", "\1"))
    return Shape(template, text.replace("\0", "{").replace("\1", "}"), tuple(secrets))


SHAPES = tuple(planted(template) for template in TEMPLATES)
