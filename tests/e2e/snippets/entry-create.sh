spire-server entry create \
  -spiffeID spiffe://aws.example.com/service-a \
  -parentID spiffe://aws.example.com/agent/node1 \
  -selector k8s:sa:service-a \
  -federatesWith spiffe://gcp.example.com
