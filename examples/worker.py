"""A worker in Python: takes numbers from a queue under a lease, and finishes each with its square.

    TOKEN=secret python3 examples/worker.py http://127.0.0.1:5000/q/squares
"""
import json, os, sys, time, urllib.request

def request(method, url, body=None, headers={}):
    headers = {"Authorization": "Bearer " + os.environ.get("TOKEN", ""), **headers}
    return urllib.request.urlopen(urllib.request.Request(url, body, headers, method=method), timeout=60)

queue = sys.argv[1]
while True:
    try:  # Until there is a job, at most 20 s. Then it is ours for 30 s.
        with request("GET", queue + "?lease=30&wait=20") as answer:
            job, lease = json.load(answer), answer.headers["X-Lease"]
        try:
            result, end = job * job, ""
        except Exception as error:
            result, end = str(error), "?failed"
        request("PUT", queue + end, json.dumps(result).encode(), {"X-Lease": lease}).close()
    except OSError as error:  # No job, the lease is lost, or nobody answers.
        print(error, file=sys.stderr)
        time.sleep(1)
