"""`ryvion-node doctor`: `machine` looks at the computer, `node` at this node's own things."""
