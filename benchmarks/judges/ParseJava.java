// Reads texts from standard input, each as its length in bytes, a line break and the bytes; writes 1 or 0 per text: does javac's parser
// take it? Run as `java ParseJava.java`.
import com.sun.source.util.JavacTask;
import java.io.*;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.util.List;
import javax.tools.*;

public class ParseJava {
  public static void main(String[] arguments) throws IOException {
    JavaCompiler compiler = ToolProvider.getSystemJavaCompiler();
    DataInputStream in = new DataInputStream(new BufferedInputStream(System.in));
    PrintStream out = new PrintStream(System.out, true);
    for (String line = readLine(in); line != null; line = readLine(in)) {
      byte[] bytes = in.readNBytes(Integer.parseInt(line));
      String text = new String(bytes, StandardCharsets.UTF_8);
      JavaFileObject file =
          new SimpleJavaFileObject(URI.create("string:///Text.java"), JavaFileObject.Kind.SOURCE) {
            @Override
            public CharSequence getCharContent(boolean ignoreEncodingErrors) {
              return text;
            }
          };
      DiagnosticCollector<JavaFileObject> diagnostics = new DiagnosticCollector<>();
      boolean valid;
      try {
        JavacTask task = (JavacTask) compiler.getTask(null, null, diagnostics, List.of(), null, List.of(file));
        task.parse();
        valid = diagnostics.getDiagnostics().stream().noneMatch(ParseJava::isSyntax);
      } catch (RuntimeException | StackOverflowError error) {
        valid = false;
      }
      out.println(valid ? "1" : "0");
    }
  }

  // The parser knows the name of the class around a constructor; a grammar does not.
  private static boolean isSyntax(Diagnostic<?> diagnostic) {
    return diagnostic.getKind() == Diagnostic.Kind.ERROR
        && !diagnostic.getCode().equals("compiler.err.invalid.meth.decl.ret.type.req");
  }

  private static String readLine(DataInputStream in) throws IOException {
    StringBuilder line = new StringBuilder();
    for (int c = in.read(); c >= 0; c = in.read()) {
      if (c == '\n') return line.toString();
      line.append((char) c);
    }
    return null;
  }
}
