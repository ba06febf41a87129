import com.fasterxml.jackson.databind.ObjectMapper;
import java.math.BigDecimal;
import java.math.BigInteger;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.time.Duration;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.TreeMap;
import java.util.function.Consumer;
import org.apache.avro.LogicalTypes;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericData;
import org.apache.avro.generic.GenericFixed;
import org.apache.avro.generic.GenericRecord;
import org.apache.avro.message.BinaryMessageDecoder;
import org.apache.avro.message.SchemaStore;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/**
 * Reads a ledger's topics with Kafka's and Avro's own Java libraries: BOOTSTRAP LEDGER SchemaPublished.avsc.
 *
 * One schema is given, that of SchemaPublished; the control log, read first, tells all others. Each event is printed as
 * one line of JSON: topic, partition, position and value; bytes as hexadecimal text, decimals as text, times as numbers.
 */
class ReadSingleObject {
    private static final long DEADLINE_MS = 60_000;

    private final SchemaStore.Cache store = new SchemaStore.Cache();
    private final Map<String, BinaryMessageDecoder<GenericRecord>> decoders = new HashMap<>();
    private final Schema published;

    ReadSingleObject(Schema published) {
        this.published = published;
        learn(published);
    }

    public static void main(String[] arguments) throws Exception {
        Schema published = new Schema.Parser().parse(Path.of(arguments[2]).toFile());
        ReadSingleObject reader = new ReadSingleObject(published);
        ObjectMapper json = new ObjectMapper();
        follow(arguments[0], arguments[1] + ".control", record -> {
            if (!type(record).equals(published.getFullName())) {
                return;
            }
            GenericRecord event = reader.decode(record);
            reader.learn(new Schema.Parser().parse(event.get("schema_json").toString()));
        });
        for (String topic : List.of(arguments[1] + ".control", arguments[1] + ".events")) {
            follow(arguments[0], topic, record -> {
                Map<String, Object> line = new LinkedHashMap<>();
                line.put("topic", topic);
                line.put("partition", record.partition());
                line.put("position", Long.parseLong(header(record, "ce_sequence")));
                line.put("type", type(record));
                GenericRecord event = reader.decode(record);
                line.put("value", plain(event.getSchema(), event));
                try {
                    System.out.println(json.writeValueAsString(line));
                } catch (java.io.IOException error) {
                    throw new java.io.UncheckedIOException(error);
                }
            });
        }
    }

    private void learn(Schema schema) {
        store.addSchema(schema);
        decoders.put(schema.getFullName(), new BinaryMessageDecoder<>(new GenericData(), schema, store));
    }

    private GenericRecord decode(ConsumerRecord<byte[], byte[]> record) {
        try {
            return decoders.get(type(record)).decode(record.value());
        } catch (java.io.IOException error) {
            throw new java.io.UncheckedIOException(error);
        }
    }

    /** Every event of a topic up to its last stable offset now; what carries no event is left out. */
    private static void follow(String bootstrap, String topic, Consumer<ConsumerRecord<byte[], byte[]>> each) {
        Properties options = new Properties();
        options.put("bootstrap.servers", bootstrap);
        options.put("isolation.level", "read_committed");
        options.put("auto.offset.reset", "none");
        options.put("enable.auto.commit", "false");
        options.put("key.deserializer", ByteArrayDeserializer.class.getName());
        options.put("value.deserializer", ByteArrayDeserializer.class.getName());
        try (KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(options)) {
            List<TopicPartition> partitions = consumer.partitionsFor(topic).stream()
                    .map(found -> new TopicPartition(topic, found.partition())).toList();
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            Map<TopicPartition, Long> ends = consumer.endOffsets(partitions);
            long deadline = System.currentTimeMillis() + DEADLINE_MS;
            while (!partitions.stream().allMatch(one -> consumer.position(one) >= ends.get(one))) {
                if (System.currentTimeMillis() > deadline) {
                    throw new IllegalStateException("the end of " + topic + " was not reached");
                }
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(200))) {
                    if (record.headers().lastHeader("sl_barrier") != null) {
                        throw new IllegalStateException("an aborted record was seen: " + record);
                    }
                    if (record.headers().lastHeader("sl_meta") == null) {
                        each.accept(record);
                    }
                }
            }
        }
    }

    private static String header(ConsumerRecord<byte[], byte[]> record, String name) {
        return new String(record.headers().lastHeader(name).value(), java.nio.charset.StandardCharsets.UTF_8);
    }

    private static String type(ConsumerRecord<byte[], byte[]> record) {
        return header(record, "ce_type");
    }

    private static Object plain(Schema schema, Object value) {
        return switch (schema.getType()) {
            case RECORD -> {
                Map<String, Object> fields = new LinkedHashMap<>();
                for (Schema.Field field : schema.getFields()) {
                    fields.put(field.name(), plain(field.schema(), ((GenericRecord) value).get(field.pos())));
                }
                yield fields;
            }
            case UNION -> value == null ? null : plain(schema.getTypes().stream()
                    .filter(branch -> branch.getType() != Schema.Type.NULL).findFirst().orElseThrow(), value);
            case ARRAY -> ((List<?>) value).stream().map(item -> plain(schema.getElementType(), item)).toList();
            case MAP -> {
                Map<String, Object> entries = new TreeMap<>();
                ((Map<?, ?>) value).forEach((key, item) -> entries.put(key.toString(), plain(schema.getValueType(), item)));
                yield entries;
            }
            case FIXED -> HexFormat.of().formatHex(((GenericFixed) value).bytes());
            case BYTES -> bytes(schema, (ByteBuffer) value);
            case STRING -> value.toString();
            default -> value;
        };
    }

    private static String bytes(Schema schema, ByteBuffer value) {
        byte[] content = new byte[value.remaining()];
        value.duplicate().get(content);
        if (schema.getLogicalType() instanceof LogicalTypes.Decimal decimal) {
            return new BigDecimal(new BigInteger(content), decimal.getScale()).toPlainString();
        }
        return HexFormat.of().formatHex(content);
    }
}
