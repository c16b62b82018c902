{{- define "quorumgate.labels" -}}
app.kubernetes.io/name: quorumgate
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "quorumgate.selector" -}}
app.kubernetes.io/name: quorumgate
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "quorumgate.listen" -}}
- --data-dir=/var/lib/quorumgate
- --name=$(POD_NAME)
- --region={{ .Values.region }}
- --proxy-listen=0.0.0.0:8080
- --peer-listen=0.0.0.0:7000
- --advertise=$(POD_NAME).{{ .Release.Name }}-peers.$(POD_NAMESPACE).svc:7000
- --admin-listen=127.0.0.1:7001
- --telemetry-listen=0.0.0.0:7002
{{- end }}

{{/* The controller of the Gateway API, as a second container of the founder. */}}
{{- define "quorumgate.controller" -}}
- name: gateway-api
  image: "{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}"
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  args:
    - --endpoint=unix:/var/lib/quorumgate/admin.sock
    - kubernetes
    - --service={{ .Release.Namespace }}/{{ .Release.Name }}
    {{- range .Values.gatewayApi.ports }}
    - --port={{ .port }}={{ .nodePort }}
    {{- end }}
  resources: {{- toYaml .Values.gatewayApi.resources | nindent 4 }}
  securityContext:
    allowPrivilegeEscalation: false
    readOnlyRootFilesystem: true
    capabilities: { drop: [ALL] }
  volumeMounts:
    - { name: data, mountPath: /var/lib/quorumgate }
    # Here alone: the gateway itself has no business with the API server.
    - { name: service-account, mountPath: /var/run/secrets/kubernetes.io/serviceaccount, readOnly: true }
{{- end }}

{{/* One node's pod: root (the chart's), args (a list as YAML), joins (it needs the token). */}}
{{- define "quorumgate.pod" -}}
{{- $root := .root -}}
terminationGracePeriodSeconds: {{ $root.Values.terminationGracePeriodSeconds }}
automountServiceAccountToken: false
{{- if and $root.Values.gatewayApi.enabled (not .joins) }}
serviceAccountName: {{ $root.Release.Name }}-gateway-api
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  seccompProfile: { type: RuntimeDefault }
{{- with $root.Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $root.Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
affinity:
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels: {{- include "quorumgate.selector" $root | nindent 14 }}
containers:
  - name: quorumgate
    image: "{{ $root.Values.image.repository }}:{{ $root.Values.image.tag | default $root.Chart.AppVersion }}"
    imagePullPolicy: {{ $root.Values.image.pullPolicy }}
    args: {{- .args | nindent 6 }}
    env:
      - { name: POD_NAME, valueFrom: { fieldRef: { fieldPath: metadata.name } } }
      - { name: POD_NAMESPACE, valueFrom: { fieldRef: { fieldPath: metadata.namespace } } }
    ports:
      - { name: http, containerPort: 8080, protocol: TCP }
      - { name: peers, containerPort: 7000, protocol: UDP }
      - { name: telemetry, containerPort: 7002, protocol: TCP }
    startupProbe: { httpGet: { path: /startupz, port: telemetry }, periodSeconds: 2, failureThreshold: 150 }
    readinessProbe: { httpGet: { path: /readyz, port: telemetry }, periodSeconds: 2, failureThreshold: 1 }
    livenessProbe: { httpGet: { path: /livez, port: telemetry }, periodSeconds: 10, failureThreshold: 3 }
    resources: {{- toYaml $root.Values.resources | nindent 6 }}
    securityContext:
      allowPrivilegeEscalation: false
      readOnlyRootFilesystem: true
      capabilities: { drop: [ALL] }
    volumeMounts:
      - { name: data, mountPath: /var/lib/quorumgate }
      {{- if .joins }}
      - { name: join, mountPath: /run/join, readOnly: true }
      {{- end }}
  {{- if and $root.Values.gatewayApi.enabled (not .joins) }}
  {{- include "quorumgate.controller" $root | nindent 2 }}
  {{- end }}
{{- end }}
