"""Speaks Kubernetes' Container Runtime Interface as the kubelet does.

    cri.py SOCKET call METHOD JSON          the answer as JSON
    cri.py SOCKET await-exit ID             until the container has ended
    cri.py SOCKET exec-sync [--within SECONDS] ID COMMAND...
                                            its outputs and exit code; what a probe and a lifecycle hook are
    cri.py SOCKET exec [-t] ID COMMAND...   the same by a stream, with this process's input
    cri.py SOCKET attach ID                 to the program itself
    cri.py SOCKET forward POD PORT          standard input and output to a port of the pod

PYTHONPATH has the directory of cri_pb2.py, which protoc makes of cri.proto.
"""

import json
import sys
import time

import cri_pb2
import grpc
import websocket
from google.protobuf import json_format

SECONDS = 240
OUT, ERR, STATUS, RESIZE = 1, 2, 3, 4


def call(channel, method, request):
    """A method of the service, named after its messages."""
    message = json_format.ParseDict(request, getattr(cri_pb2, method + "Request")())
    response = getattr(cri_pb2, method + "Response")
    ask = channel.unary_unary(
        f"/runtime.v1.RuntimeService/{method}", type(message).SerializeToString, response.FromString
    )
    return ask(message, timeout=SECONDS, wait_for_ready=False)


def write(stream, data):
    stream.buffer.write(data)
    stream.buffer.flush()


def frames(url, first):
    """The stream behind a URL of the runtime: sends our input, and gives (channel, data) until the other side closes."""
    address = url.replace("http:", "ws:")
    stream = websocket.create_connection(address, timeout=SECONDS, subprotocols=["v4.channel.k8s.io"])
    for frame in first:
        stream.send_binary(frame)
    if data := sys.stdin.buffer.read():
        stream.send_binary(b"\0" + data)
    try:
        while frame := stream.recv():
            yield frame[0], frame[1:]
    except websocket.WebSocketConnectionClosedException:
        pass


def stream_process(url, tty):
    first = [bytes([RESIZE]) + b'{"Width": 91, "Height": 37}'] if tty else []
    code = 0
    for number, data in frames(url, first):
        if number == OUT:
            write(sys.stdout, data)
        elif number == ERR:
            write(sys.stderr, data)
        elif number == STATUS and data:
            status = json.loads(data)
            causes = status.get("details", {}).get("causes", [])
            codes = [int(cause["message"]) for cause in causes if cause["reason"] == "ExitCode"]
            if status["status"] != "Success":
                code = codes[0] if codes else sys.exit(status["message"])
    return code


def forward(url):
    # Both channels, data and error, begin with the port's number.
    numbers = set()
    for channel, data in frames(url, []):
        if channel in numbers:
            write([sys.stdout, sys.stderr][channel], data)
        elif data:
            numbers.add(channel)
    return 0


def main(socket, action, *words):
    channel = grpc.insecure_channel(f"unix://{socket}")
    if action == "call":
        method, request = words
        answer = call(channel, method, json.loads(request))
        print(json_format.MessageToJson(answer, including_default_value_fields=True, indent=None))
        return 0
    if action == "await-exit":
        limit = time.monotonic() + SECONDS
        while call(channel, "ContainerStatus", {"containerId": words[0]}).status.state != cri_pb2.CONTAINER_EXITED:
            if time.monotonic() > limit:
                sys.exit(f"{words[0]} has not ended")
            time.sleep(0.05)
        return 0
    if action == "exec-sync":
        seconds = SECONDS
        if words[0] == "--within":
            seconds, words = int(words[1]), words[2:]
        answer = call(channel, "ExecSync", {"containerId": words[0], "cmd": list(words[1:]), "timeout": seconds})
        write(sys.stdout, answer.stdout)
        write(sys.stderr, answer.stderr)
        return answer.exit_code
    if action == "exec":
        tty = words[0] == "-t"
        target, *command = words[tty:]
        request = {"containerId": target, "cmd": command, "tty": tty, "stdin": True, "stdout": True, "stderr": not tty}
        return stream_process(call(channel, "Exec", request).url, tty)
    if action == "attach":
        request = {"containerId": words[0], "stdin": True, "stdout": True, "stderr": True}
        return stream_process(call(channel, "Attach", request).url, False)
    if action == "forward":
        return forward(call(channel, "PortForward", {"podSandboxId": words[0], "port": [int(words[1])]}).url)
    sys.exit(__doc__)


try:
    sys.exit(main(*sys.argv[1:]))
except grpc.RpcError as error:
    sys.exit(f"{error.code().name}: {error.details()}")
