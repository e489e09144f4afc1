// npm's alipay-sdk as a client, a signer and a verifier. Reads one JSON object from standard input, writes one to standard output.
import { AlipaySdk } from 'alipay-sdk';
import { sign, signatureV3, verifySignatureV3 } from './node_modules/alipay-sdk/dist/esm/util.js';

let input = '';
for await (const piece of process.stdin) input += piece;
const asked = JSON.parse(input);

function sdk({ credentials, address }) {
  const certified = credentials.protocol.endsWith('_certificates');
  return new AlipaySdk({
    appId: credentials.app_id,
    privateKey: credentials.private_key,
    keyType: 'PKCS8',
    gateway: `${address}/gateway.do`,
    endpoint: address,
    camelcase: false,
    ...(certified
      ? {
          appCertContent: credentials.app_certificate,
          alipayPublicCertContent: credentials.alipay_certificate,
          alipayRootCertContent: credentials.alipay_root_certificate,
        }
      : { alipayPublicKey: credentials.alipay_public_key }),
  });
}

const does = {
  // Calls, one after another; the SDK verifies every answer.
  async calls() {
    const client = sdk(asked);
    const answers = [];
    for (const { method, content, query } of asked.calls) {
      try {
        if (asked.credentials.protocol.startsWith('v3')) {
          const path = `/v3/${method.replaceAll('.', '/')}`;
          const answer = await client.curl(query ? 'GET' : 'POST', path, query ? { query } : { body: content });
          answers.push({ status: answer.responseHttpStatus, ...answer.data });
        } else {
          answers.push(await client.exec(method, { bizContent: content ?? query }, { validateSign: true }));
        }
      } catch (error) {
        answers.push({ error: String(error.message), status: error.responseHttpStatus, code: error.code });
      }
    }
    return answers;
  },
  // What the SDK would sign for the same request.
  async v1_signature() {
    const { method, biz_content, ...others } = asked.parameters;
    const config = sdk(asked).config;
    return sign(method, { ...others, bizContent: JSON.parse(biz_content) }, config, { bizContentAutoSnakeCase: false }).sign;
  },
  async v3_signature() {
    return signatureV3(asked.content, sdk(asked).config.privateKey);
  },
  async v3_verify() {
    return verifySignatureV3(asked.content, asked.signature, asked.public_key);
  },
  async serials() {
    const { appCertSn, alipayCertSn, alipayRootCertSn } = sdk(asked).config;
    return [appCertSn, alipayCertSn, alipayRootCertSn];
  },
  async notification() {
    return sdk(asked).checkNotifySignV2(asked.fields);
  },
};

process.stdout.write(JSON.stringify(await does[asked.do]()));
