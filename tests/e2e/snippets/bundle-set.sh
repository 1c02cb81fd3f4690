# on A (aws.example.com)
spire-server bundle set -id spiffe://gcp.example.com -path /path/to/gcp-bundle.json

# on B (gcp.example.com)
spire-server bundle set -id spiffe://aws.example.com -path /path/to/aws-bundle.json
