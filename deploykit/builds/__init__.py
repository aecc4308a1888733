"""Signed build results: kept, judged, and asked before a deploy.

result  a body and its signature, as they came
judge   does it count: signature, grant, age
store   the verified ones, durable
gate    required jobs and what is known of a commit -> open, or why not
"""

from deploykit.builds.gate import GateDecision, decide
from deploykit.builds.judge import KnownResult, judge, judge_to_keep
from deploykit.builds.result import SignedResult, read_results, write_results
from deploykit.builds.store import BuildStore, StoredResult

__all__ = [
    "BuildStore",
    "GateDecision",
    "KnownResult",
    "SignedResult",
    "StoredResult",
    "decide",
    "judge",
    "judge_to_keep",
    "read_results",
    "write_results",
]
