"""Experiments on accounts: the real command, a real issuer over HTTP, and a scripted upstream.

    python -m tests.accounts failover --requests 10000 --seed 1
    python -m tests.accounts expiries --count 1000 --kills 100 --seed 1

Short runs of both are tests.
"""
