"""Where secrets stand in addresses, headers and commands, and the shapes that issuers give them.

The prefixes are those of the issuers' own documentation, which gives them so that scanners find
them; the lengths are lower bounds.
"""

from __future__ import annotations

import re

_PRIVATE = r"[A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----"

PLACES = tuple(
    re.compile(pattern, re.IGNORECASE | re.DOTALL)
    for pattern in (
        # a key's block, whole or cut off, its lines apart or escaped
        rf"(?P<keep>)-----BEGIN {_PRIVATE}(?:.*?-----END {_PRIVATE}|[\w\s+/=\\:,\-]*)",
        r"(?P<keep>private-lines: *\d+)(?!\*{3})[\w+/=\s\\]{16,}",
        # user and password of an address, up to its last @; then with a slash in the password
        r"(?P<keep>(?:\b[a-z][a-z0-9+.\-]*:|(?<![\w:/.]))//)[^/\s?#'\"<>]+(?=@)",
        r"(?P<keep>\b[a-z][a-z0-9+.\-]*://)[^\s/:@'\"]+:(?!\d*(?:[/?#]|$))[^\s@'\"]+(?=@)",
        # a signed or keyed address
        r"(?P<keep>[?&;#][\w.\-%]*(?:token|secret|passw(?:or)?d|pwd|key|signature|sig|credential"
        r"|auth|jwt|session(?:_?id)?|awsaccesskeyid)=)[^&;\s#'\"]+",
        r"(?P<keep>\bhooks\.slack\.com/(?:services|workflows|triggers)/)[\w/\-]+",
        r"(?P<keep>\b(?:discord|discordapp)\.com/api/webhooks/\d+/)[\w\-]+",
        r"(?P<keep>\bwebhook\.office\.com/webhookb2/)[\w@/\-]+",
        # headers
        r"(?P<keep>\bauthorization[\"']?\s*[:=]\s*[\"']?(?:basic|bearer|token|apikey|api-key"
        r"|key|negotiate|ntlm|ssws|oauth|hmac|sharedkey|aws4-hmac-sha256)\s+)(?!\*{3})[^\"'\r\n]+",
        r"(?P<keep>\bbearer\s+)[\w\-.~+/]{8,}=*",
        r"(?P<keep>\b(?:basic|ssws)\s+)(?=[\w\-.~+/]*(?:[\d=]|(?-i:[a-z][A-Z])))[\w\-.~+/]{8,}=*",
        r"(?P<keep>\b(?:set-)?cookie[\"']?\s*:\s*[\"']?)(?!\*{3})[\w.\-%]+=[^\"'\r\n]+",
        # commands and files of other programs
        r"(?P<keep>(?<!\S)(?:-u|--user|--proxy-user)[ =]['\"]?[\w.\-]+:)(?!\*{3})[^\s'\"]+",
        r"(?P<keep>\bsshpass\s+-p\s*['\"]?)(?!\*{3})[^\s'\"]+",
        r"(?P<keep>(?<!\S)-pass(?:in|out)?\s+pass:)(?!\*{3})[^\s'\"]+",
        r"(?P<keep>\blogin\s+\S+\s+password\s+)(?!\*{3})\S+",
        r"(?P<keep>\bidentified\s+by\s+['\"])(?!\*{3})[^'\"]+",
        r"(?P<keep>[\"']key[\"']\s*:\s*[\"'])[0-9a-f]{32,}(?=[\"'])",
        r"(?P<keep>\bname=[\"'](?:password|token|api_?key|secret)[\"']\s+value=[\"'])"
        r"(?!\*{3})[^\"']+",
    )
)
"""Each keeps its group `keep` and hides what follows it."""

_ISSUED = (
    # models and data
    (r"hf_[A-Za-z0-9]{16,}", r"api_org_[A-Za-z0-9]{16,}", r"sk-(?=[\w\-]*\d)[\w\-]{16,}")
    + (r"gsk_[A-Za-z0-9]{20,}", r"xai-[A-Za-z0-9]{20,}", r"pplx-[A-Za-z0-9]{20,}")
    + (r"r8_[A-Za-z0-9]{20,}", r"wandb_v1_\w{16,}", r"nvapi-[\w\-]{20,}", r"dapi[0-9a-f]{32}")
    + (r"jina_[A-Za-z0-9]{20,}", r"tvly-[\w\-]{16,}", r"fw_[A-Za-z0-9]{20,}", r"KGAT_\w{16,}")
    # code, packages and builds
    + (r"gh[pousr]_[A-Za-z0-9]{16,}", r"github_pat_\w{16,}", r"gl[a-z]{2,6}-[\w\-.]{20,}")
    + (r"npm_[A-Za-z0-9]{30,}", r"pypi-[\w\-]{32,}", r"rubygems_[0-9a-f]{40,}")
    + (r"dckr_[po]at_[\w\-]{16,}", r"cio[A-Za-z0-9]{32}", r"CCI(?:PAT|PRJ)_\w{16,}")
    + (r"bkua_[0-9a-f]{30,}", r"sntry[su]_[\w\-=+/]{20,}", r"PMAK-[0-9a-f]{20,}-[0-9a-f]{30,}")
    + (r"AT(?:ATT3|CTT3|BB)[\w\-=]{20,}", r"figd_[\w\-]{20,}", r"lin_(?:api|oauth)_\w{20,}")
    + (r"pul-[0-9a-f]{40}", r"[A-Za-z0-9]{14}\.atlasv1\.[\w\-]{40,}", r"oy2[a-z0-9]{43}")
    # clouds
    + (r"A(?:KIA|SIA|BIA|CCA)[0-9A-Z]{16}", r"AIza[\w\-]{30,}", r"ya29\.[\w\-.]{20,}")
    + (r"GOCSPX-[\w\-]{20,}", r"1//0[\w\-]{30,}", r"[\w~.\-]{3}\dQ~[\w~.\-]{31,}")
    + (r"do[por]_v1_[0-9a-f]{40,}", r"LTAI[A-Za-z0-9]{16,}", r"AKID[A-Za-z0-9]{28,}")
    + (r"AQVN[\w\-]{30,}", r"tskey-[a-z]+-[\w\-]{16,}", r"fo1_[\w\-]{30,}", r"FlyV1 fm\d_\S+")
    + (r"hv[sbr]\.[\w\-]{20,}", r"nfp_[A-Za-z0-9]{30,}", r"HRKU-[\w\-]{30,}", r"sbp_[0-9a-f]{40}")
    + (r"pscale_(?:tkn|pw|oauth)_[\w\-.]{20,}", r"dp\.(?:pt|st|ct|sa)\.[\w.\-]{30,}")
    + (r"ops_eyJ[\w\-]{30,}", r"AGE-SECRET-KEY-1[0-9A-Z]{40,}", r"sb_secret_[\w\-]{20,}")
    # money and shops
    + (r"[srp]k_(?:live|test|prod)_[A-Za-z0-9]{10,}", r"whsec_[A-Za-z0-9+/=]{20,}")
    + (r"shp(?:at|ca|ss|pa)_[0-9a-f]{32}", r"sq0[a-z]{3}-[\w\-]{20,}", r"EAAA[\w\-]{40,}")
    + (r"FLWSECK(?:_TEST)?-[\w\-]{12,}", r"EZ[AT]K[A-Za-z0-9]{40,}", r"rzp_(?:live|test)_\w{14,}")
    + (r"access-(?:sandbox|development|production)-[0-9a-f\-]{36}",)
    # messages and watchers
    + (r"xox[abeoprs]-[\w\-]{10,}", r"xapp-\d-[\w\-]{20,}", r"\d{8,10}:AA[\w\-]{30,}")
    + (r"[MNO][A-Za-z\d]{23,25}\.[\w\-]{6}\.[\w\-]{27,}", r"EAA[A-Za-z0-9]{40,}")
    + (r"SG\.[\w\-]{16,}\.[\w\-]{16,}", r"key-[0-9a-f]{32}", r"SK[0-9a-f]{32}")
    + (r"[0-9a-f]{32}-us\d{1,2}", r"xkeysib-[0-9a-f]{40,}-\w+", r"NR(?:AK|II|JS|RA)-[\w\-]{20,}")
    + (r"glsa_\w{30,}", r"glc_[\w=+/]{30,}", r"dt0c01\.[A-Z0-9]{24}\.[A-Z0-9]{40,}")
    + (r"ph[cx]_[A-Za-z0-9]{30,}", r"ntn_[A-Za-z0-9]{30,}", r"secret_[A-Za-z0-9]{40,}")
    + (r"pat[A-Za-z0-9]{14}\.[0-9a-f]{60,}", r"CFPAT-[\w\-]{30,}", r"tfp_[\w\-]{40,}")
    # tokens that carry what they say
    + (r"(?:sk\.)?eyJ[\w\-]{8,}\.[\w\-]{8,}(?:\.[\w\-]{8,})?",)
)

ISSUERS = re.compile(rf"(?<![A-Za-z0-9])(?:{'|'.join(_ISSUED)})")
"""A whole match is a secret; a letter or a digit before it says that it is a part of a word."""
