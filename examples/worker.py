"""A worker in Python: takes numbers from a queue under a lease, and finishes each with its square. SIGTERM ends it after its job.

    TOKEN=secret python3 examples/worker.py http://127.0.0.1:5000/q/squares
"""
import http.client, json, os, signal, sys, time, urllib.request

def request(method, url, body=None, headers={}, tries=1):
    headers = {"Authorization": "Bearer " + os.environ.get("TOKEN", ""), **headers}
    try:
        question = urllib.request.Request(url, body, headers, method=method)
        with urllib.request.urlopen(question, timeout=60) as answer:
            return answer.read(), answer.headers.get("X-Lease")
    except (OSError, http.client.HTTPException) as error:  # No job, the lease is lost, or nobody answers.
        print(error, file=sys.stderr)
        time.sleep(1)
        isLost = getattr(error, "code", 500) < 500
        return (None, None) if isLost or tries == 1 else request(method, url, body, headers, tries - 1)

stopping = []
signal.signal(signal.SIGTERM, lambda *_: stopping.append(True))
queue = sys.argv[1]
while not stopping:
    # Until there is a job, at most 10 s. Then it is ours for 30 s.
    text, lease = request("GET", queue + "?lease=30&wait=10")
    if lease:
        try:
            job = json.loads(text)
            body, end = json.dumps(job * job, allow_nan=False), ""
        except Exception as error:
            body, end = json.dumps(str(error)), "?failed"
        # An end that is told again, because its answer was lost, counts once.
        request("PUT", queue + end, body.encode(), {"X-Lease": lease}, tries=5)
