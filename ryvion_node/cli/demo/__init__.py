"""`ryvion-node demo`: a whole market of separate processes on this machine, driven and shown.

`network` starts and stops the nodes, `scenario` drives them and yields events, `render` shows events.
"""
