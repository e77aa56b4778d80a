"""Published weights: what there is, where it is fetched from, and the cache that it is kept in.

    table.py       the table of published weights (weights.toml)
    cache.py       the files that were fetched, each with a record of what it is
    download.py    one file from one address: in ranges, so that what was cut goes on
    failure.py     what a failed request means, in words
    fetch.py       fetching by name: licence, room, addresses in turn, hash, cache
    recognise.py   what network a file of weights is of (needs torch; nothing else here does)

`urllib.request` of the standard library does the requests: it takes the proxies of the environment (`https_proxy`,
`no_proxy`), the certificates of the system (or `SSL_CERT_FILE`), and needs no other package.
"""

from .cache import check_unchanged, find_cached, not_fetched
from .fetch import fetch, take_file
from .table import Entry, Licence, find_entry, read_table

__all__ = [
    "Entry", "Licence", "check_unchanged", "fetch", "find_cached", "find_entry", "not_fetched", "read_table",
    "take_file",
]  # fmt: skip
